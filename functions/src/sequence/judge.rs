//! Which statements may follow their chains. Pure.

use std::collections::BTreeMap;

use modunest_core::index::{INDEX_FILE_MAX_BYTES, IndexFile};
use modunest_core::name::{OrgName, PluginName};
use modunest_core::problem::{Code, Refusal};
use modunest_core::statement::{FoldError, OrgState, PluginState, STATEMENT_MAX_BYTES, Subject};
use modunest_tlog::VerifyingKey;

use crate::store::pending::Pending;

/// Longest line that an index file puts before a statement.
const ENTRY_LINE_MAX_BYTES: usize = 42;

/// Statements that follow, in the order they were judged, what their subjects fold to with
/// them, and the others.
#[derive(Default)]
pub(super) struct Judged {
    pub(super) accepted: Vec<Pending>,
    pub(super) plugins: BTreeMap<PluginName, PluginState>,
    pub(super) orgs: BTreeMap<OrgName, OrgState>,
    pub(super) refused: Vec<(Pending, Refusal)>,
}

fn refusal(error: FoldError) -> Refusal {
    let code = match &error {
        FoldError::Chain { .. } => Code::ChainConflict,
        FoldError::Statement { .. } => Code::InvalidSignature,
        FoldError::Twice { .. } => Code::VersionConflict,
        FoldError::NoRelease { .. } => Code::NotFound,
        FoldError::Key { .. } => Code::AlreadyExists,
        FoldError::Subject { .. } => Code::InvalidStatement,
    };
    let detail = match &error {
        FoldError::Chain { .. } => {
            format!("{error}; another statement came first, so sign it again behind the newest one")
        }
        other => other.to_string(),
    };
    Refusal::new(code, detail)
}

/// A file in the index that does not fold blocks its own subject and nobody else.
fn damaged(subject: &Subject, error: &FoldError) -> Refusal {
    tracing::error!(%subject, %error, "the stored statements of a subject do not fold");
    Refusal::new(Code::Internal, format!("the stored statements of {subject} are damaged"))
}

type Files = BTreeMap<Subject, IndexFile>;

/// Judges statements against the files of their subjects, and of the organisations that sign
/// for them. Statements about organisations come first: a key that is revoked in the same
/// batch signs nothing in it.
pub(super) fn judge(mut pending: Vec<Pending>, files: &Files, registry: &[VerifyingKey]) -> Judged {
    pending.sort_by_key(|pending| {
        let statement = pending.statement.statement();
        (statement.subject(), statement.link().sequence)
    });
    let (orgs, plugins): (Vec<Pending>, Vec<Pending>) = pending
        .into_iter()
        .partition(|pending| matches!(pending.statement.statement().subject(), Subject::Org(_)));
    let mut judged = Judged::default();
    let mut known: BTreeMap<OrgName, Result<OrgState, Refusal>> = BTreeMap::new();
    let mut lengths: BTreeMap<Subject, usize> = BTreeMap::new();
    for pending in orgs.into_iter().chain(plugins) {
        let subject = pending.statement.statement().subject();
        let org = subject.org();
        let state = known.entry(org.clone()).or_insert_with(|| fold_org(&org, files, registry));
        let length = lengths
            .entry(subject.clone())
            .or_insert_with(|| files.get(&subject).map_or(0, |file| file.to_bytes().len()));
        let verdict = match state {
            Err(refusal) => Err(refusal.clone()),
            Ok(_)
                if *length + ENTRY_LINE_MAX_BYTES + STATEMENT_MAX_BYTES > INDEX_FILE_MAX_BYTES =>
            {
                Err(Refusal::new(
                    Code::TooLarge,
                    format!("{subject} has as many statements as the index holds"),
                ))
            }
            Ok(state) => match &subject {
                Subject::Org(_) => state.apply(&pending.statement, registry).map_err(refusal),
                Subject::Plugin(plugin) => {
                    apply_to_plugin(&mut judged, plugin, state, &pending, files)
                }
            },
        };
        match verdict {
            Err(refusal) => judged.refused.push((pending, refusal)),
            Ok(()) => {
                *length += ENTRY_LINE_MAX_BYTES + pending.statement.bytes().len();
                if let (Subject::Org(org), Ok(state)) = (&subject, state) {
                    judged.orgs.insert(org.clone(), state.clone());
                }
                judged.accepted.push(pending);
            }
        }
    }
    // Only what changed is written.
    let changed = |plugin: &PluginName| {
        judged
            .accepted
            .iter()
            .any(|p| p.statement.statement().subject() == Subject::Plugin(plugin.clone()))
    };
    let plugins = std::mem::take(&mut judged.plugins);
    judged.plugins = plugins.into_iter().filter(|(plugin, _)| changed(plugin)).collect();
    judged
}

fn fold_org(org: &OrgName, files: &Files, registry: &[VerifyingKey]) -> Result<OrgState, Refusal> {
    let subject = Subject::Org(org.clone());
    let mut state = OrgState::new(org.clone());
    for (_, signed) in files.get(&subject).iter().flat_map(|file| &file.entries) {
        state.apply(signed, registry).map_err(|error| damaged(&subject, &error))?;
    }
    Ok(state)
}

fn apply_to_plugin(
    judged: &mut Judged,
    plugin: &PluginName,
    org: &OrgState,
    pending: &Pending,
    files: &Files,
) -> Result<(), Refusal> {
    if !judged.plugins.contains_key(plugin) {
        let subject = Subject::Plugin(plugin.clone());
        let mut state = PluginState::new(plugin.clone());
        // What was signed before a key was revoked stays signed.
        let keys = org.all_keys();
        for (_, signed) in files.get(&subject).iter().flat_map(|file| &file.entries) {
            state.apply(signed, &keys).map_err(|error| damaged(&subject, &error))?;
        }
        judged.plugins.insert(plugin.clone(), state);
    }
    match judged.plugins.get_mut(plugin) {
        Some(state) => state.apply(&pending.statement, &org.valid_keys()).map_err(refusal),
        None => Ok(()),
    }
}
