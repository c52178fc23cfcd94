//! Check 7: what a host asks of a release beyond its proof.

use modunest_core::digest::Digest;
use modunest_core::statement::{PluginState, ReleaseState, TrustLevel, VerdictOutcome};
use modunest_core::trust::TrustPolicy;
use serde::{Deserialize, Serialize};

/// The operator's policy. The registry's own, from its trust root, can only make it stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Whether a release needs a verdict of the registry's scan.
    pub require_verdict: bool,
    /// Whether a release may be loaded whose scan found something; it is warned of then.
    pub allow_findings: bool,
    /// Plugins that the registry trusts less are not loaded.
    pub minimum_trust: TrustLevel,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { require_verdict: true, allow_findings: true, minimum_trust: TrustLevel::Community }
    }
}

/// What a policy says of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing against it.
    Allowed,
    /// It may be loaded, and its scan has this report.
    Findings(Digest),
    /// It may not be loaded; the reason follows the version.
    Refused(String),
}

impl Policy {
    /// This policy and the registry's, whichever is stricter in each point.
    pub fn with(self, registry: &TrustPolicy) -> Self {
        Policy {
            require_verdict: self.require_verdict || registry.verdict_required,
            allow_findings: self.allow_findings,
            minimum_trust: self.minimum_trust.max(registry.lowest_level),
        }
    }

    /// Judges a release that is neither quarantined nor removed.
    pub fn judge(&self, plugin: &PluginState, release: &ReleaseState) -> Judgement {
        if plugin.trust < self.minimum_trust {
            return Judgement::Refused(format!(
                "has the trust level {}, and this host loads {} and above",
                plugin.trust, self.minimum_trust
            ));
        }
        match release.verdict {
            None if self.require_verdict => Judgement::Refused(
                "has no verdict of the registry's scan, and this host requires one".to_owned(),
            ),
            Some((VerdictOutcome::Findings, report)) if !self.allow_findings => Judgement::Refused(
                format!("has findings (report {report}), and this host allows none"),
            ),
            Some((VerdictOutcome::Findings, report)) => Judgement::Findings(report),
            _ => Judgement::Allowed,
        }
    }
}
