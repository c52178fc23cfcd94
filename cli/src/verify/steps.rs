//! The steps in words.

use modunest_agent::registry::{Authority, Checkpointed};
use modunest_core::Version;
use modunest_core::statement::{
    KeyEnd, KeyState, PluginState, RegistryKeys, ReleaseState, Statement, Status, VerdictOutcome,
};
use modunest_core::time::Timestamp;

use super::chain::{Found, Included, ProvenHead};
use crate::log::{key_id, say};
use crate::output::{ago, size};

pub(super) fn trust(authority: &Authority) -> Vec<String> {
    let list = |keys: &RegistryKeys| {
        let each: Vec<String> = keys
            .0
            .iter()
            .map(|key| match key.until {
                None => key_id(&key.key),
                Some(until) => format!("{} below position {until}", key_id(&key.key)),
            })
            .collect();
        each.join(", ")
    };
    let log_keys: Vec<String> = authority.log_keys.iter().map(key_id).collect();
    let witnesses = authority.witnesses.witnesses();
    let names: Vec<&str> = witnesses.iter().map(|witness| witness.name.as_str()).collect();
    vec![
        format!("registry and log: {}", authority.origin),
        format!("log key: {}", log_keys.join(", ")),
        format!("head keys: {}", list(&authority.head_keys)),
        format!("statement keys: {}", list(&authority.statement_keys)),
        match names.as_slice() {
            [] => "witnesses: none are asked for".to_owned(),
            names => format!("witnesses: {}", names.join(", ")),
        },
    ]
}

pub(super) fn checkpoint(it: &Checkpointed, now: Timestamp) -> Vec<String> {
    let checkpoint = &it.signed.checkpoint;
    let mut lines = vec![
        format!("size {}, root {}", checkpoint.size, checkpoint.root),
        format!("signed as the log {}", checkpoint.origin),
    ];
    for (name, time_secs) in &it.cosigned {
        let time = Timestamp::from_millis(time_secs.saturating_mul(1000));
        lines.push(format!("cosigned by {name} at {time}, {}", ago(now.since(time))));
    }
    if it.cosigned.is_empty() {
        lines.push("cosigned by nobody, and the policy asks for nobody".to_owned());
    }
    lines
}

pub(super) fn head(it: &ProvenHead, checkpoint: &Checkpointed, now: Timestamp) -> Vec<String> {
    let head = &it.head;
    let log = &checkpoint.signed.checkpoint;
    vec![
        format!("epoch {}, index {}", head.epoch, head.index),
        format!(
            "signed {}, at {}; to be believed until {}",
            ago(now.since(head.issued_at)),
            head.issued_at,
            head.expires_at
        ),
        if head.log.size == log.size {
            format!("over the same {} entries with the same root", log.size)
        } else {
            format!(
                "over the first {} of the {} entries: consistency proof of {} hashes",
                head.log.size, log.size, it.consistency_hashes
            )
        },
    ]
}

/// The statements about one version, and those about the whole plugin.
pub(super) fn statements(found: &Found, version: &Version) -> Vec<String> {
    let is_about = |statement: &Statement| match statement {
        Statement::Release(it) => it.version == *version,
        Statement::Yank(it) => it.version == *version,
        Statement::Verdict(it) => it.version == *version,
        Statement::Quarantine(it) => it.version == *version,
        Statement::Deprecation(it) => it.version.as_ref().is_none_or(|it| it == version),
        Statement::Ownership(_) | Statement::Trust(_) | Statement::Key(_) => true,
    };
    let entries = &found.file.entries;
    let mut lines = vec![format!(
        "{} statements in unbroken chains; of them about this version:",
        entries.len()
    )];
    for (position, signed) in entries {
        let statement = signed.statement();
        if is_about(statement) {
            let (sequence, digest) = (statement.link().sequence, signed.digest());
            lines.push(format!("position {position}, number {sequence}: {}", say(statement)));
            lines.push(format!("  sha256 {digest}"));
        }
    }
    lines
}

pub(super) fn inclusion(
    release: &ReleaseState,
    proven: &Included,
    checkpoint: &Checkpointed,
) -> Vec<String> {
    let hashes = proven.hashes.get(&release.position).copied().unwrap_or_default();
    let size = checkpoint.signed.checkpoint.size;
    vec![
        format!(
            "the release: index {} of {size} entries, inclusion proof of {hashes} hashes",
            release.position
        ),
        format!(
            "with all {} statements about the plugin and its owners' keys, each proven so",
            proven.statements
        ),
    ]
}

pub(super) fn key(found: &Found, state: &PluginState, release: &ReleaseState) -> Vec<String> {
    let mut lines = vec![format!("signed by {}", key_id(&release.signer))];
    for (org, keys) in &found.states {
        let own = if *org == state.owner { "owns the plugin now" } else { "owned the plugin" };
        lines.push(format!("{org} {own}; its keys:"));
        lines.extend(keys.keys.iter().map(|key| format!("  {}", history(key))));
    }
    lines
}

fn history(key: &KeyState) -> String {
    let (id, since) = (key_id(&key.key), key.since);
    match key.end {
        None => format!("{id}: good from position {since} on"),
        Some(KeyEnd::Rotated(end)) => {
            format!("{id}: good from position {since} to {end}, then replaced")
        }
        Some(KeyEnd::Revoked(end)) => {
            format!("{id}: added at position {since}, revoked at {end}; nothing it signed is good")
        }
    }
}

pub(super) fn word(state: &PluginState, release: &ReleaseState) -> Vec<String> {
    let verdict = match &release.verdict {
        None => "no verdict of a scan".to_owned(),
        Some((outcome, report)) => format!("scan: {}, report {report}", outcome.as_str()),
    };
    let because =
        |why: &Option<String>| why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let status = match state.status(release) {
        Status::Active => "active".to_owned(),
        Status::Deprecated { message } => format!("deprecated{}", because(&message)),
        Status::Yanked { reason } => format!("yanked{}", because(&reason)),
        Status::Quarantined { reason } => format!("quarantined: {reason}"),
    };
    vec![verdict, format!("status: {status}"), format!("trust level: {}", state.trust)]
}

pub(super) fn archives(release: &ReleaseState) -> Vec<String> {
    let mut lines = vec![format!("manifest sha256 {}", release.release.manifest)];
    for build in &release.release.builds {
        let (target, bytes) = (&build.target, size(build.size_bytes));
        lines.push(format!("{target}: {bytes}, sha256 {}", build.archive));
    }
    lines
}

/// Why an agent that asks for no more than the trust policy refuses the release.
pub(super) fn refused(
    authority: &Authority,
    state: &PluginState,
    release: &ReleaseState,
) -> Option<String> {
    if let Status::Quarantined { reason } = state.status(release) {
        return Some(format!("it is quarantined: {reason}"));
    }
    let policy = &authority.policy;
    if state.trust < policy.lowest_level {
        return Some(format!(
            "its trust level is {}, and the trust policy asks for {}",
            state.trust, policy.lowest_level
        ));
    }
    match &release.verdict {
        None if policy.verdict_required => {
            Some("it has no verdict of a scan, and the trust policy asks for one".to_owned())
        }
        Some((VerdictOutcome::Rejected, _)) => Some("its scan rejected it".to_owned()),
        _ => None,
    }
}
