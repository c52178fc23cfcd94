//! The chain of proof behind one release, made anew and told step by step. Nothing that was
//! kept from before is used: each step is proven by the steps above it, and by the trust
//! configuration at its top.

mod chain;
mod steps;

use modunest_agent::registry::Authority;
use modunest_core::Version;
use modunest_core::name::PluginName;
use modunest_core::time::Timestamp;
use serde::Serialize;

use crate::error::Error;
use crate::log::Files;
use chain::Chain;

/// A step of the chain that was proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What is proven.
    pub step: &'static str,
    /// How, line by line.
    pub lines: Vec<String>,
}

/// A release and all that proves it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// The plugin.
    pub plugin: String,
    /// The version.
    pub version: String,
    /// The steps, each resting on those before it.
    pub steps: Vec<Step>,
    /// Why an agent refuses the release all the same; absent when it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What could not be proven, and why; absent when all of it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unproven: Option<String>,
}

impl Proof {
    fn step(&mut self, step: &'static str, lines: impl IntoIterator<Item = String>) {
        self.steps.push(Step { step, lines: lines.into_iter().collect() });
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("{} {}", self.plugin, self.version);
        for (number, step) in (1..).zip(&self.steps) {
            text.push_str(&format!("\n\n{number}. {}", step.step));
            for line in &step.lines {
                text.push_str(&format!("\n   {line}"));
            }
        }
        match (&self.unproven, &self.refused) {
            (Some(why), _) => text.push_str(&format!("\n\nNOT PROVEN: {why}")),
            (None, Some(why)) => {
                text.push_str(&format!("\n\nProven, and an agent refuses it: {why}"));
            }
            (None, None) => text.push_str("\n\nProven, and an agent may load it."),
        }
        text
    }
}

/// Proves a release. The steps that were proven are in `proof` whatever becomes of the rest.
///
/// # Errors
/// What could not be proven, or could not be read.
pub async fn prove(
    files: &Files,
    authority: &Authority,
    now: Timestamp,
    (plugin, version): (&PluginName, &Version),
    proof: &mut Proof,
) -> Result<(), Error> {
    (proof.plugin, proof.version) = (plugin.to_string(), version.to_string());
    let mut chain = Chain::new(files, authority, now);
    proof.step("The trust configuration says whom to believe", steps::trust(authority));
    let checkpoint = chain.checkpoint().await?;
    proof.step("The log's key signed its size and root", steps::checkpoint(&checkpoint, now));
    let head = chain.head(&checkpoint).await?;
    proof.step("The head key signed the index over that log", steps::head(&head, &checkpoint, now));
    let found = chain.walk(&head, plugin).await?;
    proof.step("The index leads to the plugin's statements", found.lines.clone());
    let state = chain.fold(&found)?;
    let release = state.releases.get(version).ok_or_else(|| {
        Error::Failed(format!(
            "{plugin} has no release {version}, proven by the index at epoch {}",
            head.head.epoch
        ))
    })?;
    proof.step("The statements follow each other", steps::statements(&found, version));
    let proven = chain.include(&found, &checkpoint).await?;
    let inclusion = steps::inclusion(release, &proven, &checkpoint);
    proof.step("Each of them is an entry of the log", inclusion);
    proof.step("The publisher's key was good when it signed", steps::key(&found, &state, release));
    proof.step("The registry's word about it", steps::word(&state, release));
    proof.step("The archives that this makes good", steps::archives(release));
    proof.refused = steps::refused(authority, &state, release);
    Ok(())
}
