//! Which statements may follow their chains, and where in the log they stand then. Pure.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::sync::Arc;

use modunest_core::index::{INDEX_FILE_MAX_BYTES, IndexFile};
use modunest_core::name::{OrgName, PluginName};
use modunest_core::problem::{Code, Refusal};
use modunest_core::statement::{
    Authorities, FoldError, Link, OrgState, PluginState, RegistryKeys, STATEMENT_MAX_BYTES,
    SignedStatement, Statement, Subject, Verdict,
};

use super::bundle::{Entry, Waiting};
use crate::error::Error;
use crate::signing::Keys;
use crate::store::pending::{Checked, Pending};

/// Longest line that an index file puts before a statement.
const ENTRY_LINE_MAX_BYTES: usize = 42;

/// What the index has of the subjects that are spoken of, and of the organisations whose keys
/// prove them; a subject of which nothing was said is not in it.
pub(super) type Known = BTreeMap<Subject, Before>;

/// What the index has of a subject before a step.
pub(super) enum Before {
    /// Its file.
    File { file: IndexFile, length_bytes: usize },
    /// What its file comes to, from a step before.
    Folded(Arc<Folded>),
}

/// What a plugin's index file comes to, every statement of it proven.
#[derive(Clone, Debug)]
pub(super) struct Folded {
    pub(super) state: PluginState,
    /// Length of the file.
    pub(super) length_bytes: usize,
}

impl Before {
    fn length_bytes(&self) -> usize {
        match self {
            Before::File { length_bytes, .. } => *length_bytes,
            Before::Folded(folded) => folded.length_bytes,
        }
    }

    /// The organisations whose keys it takes to go on from here.
    pub(super) fn orgs(&self) -> BTreeSet<OrgName> {
        match self {
            Before::File { file, .. } => file.orgs(),
            Before::Folded(folded) => BTreeSet::from([folded.state.owner.clone()]),
        }
    }
}

/// Statements that follow, in the order of the log, and the others.
#[derive(Default)]
pub(super) struct Judged {
    pub(super) entries: Vec<Entry>,
    /// Statements that stand further on in their chains than those reach. What is missing
    /// between may have come while the others were read.
    pub(super) ahead: Vec<(Pending, Refusal)>,
    pub(super) refused: Vec<(Pending, Refusal)>,
    /// What the plugins that are spoken of come to behind the entries.
    pub(super) plugins: BTreeMap<PluginName, PluginState>,
}

/// Judges statements against what is known of their subjects, for places in the log from `size`
/// on. Statements about organisations come first: a key that is revoked in the same batch
/// signs nothing in it. Behind each release of a session stands its verdict.
///
/// # Errors
/// When a verdict cannot be signed.
pub(super) fn judge(
    mut pending: Vec<Pending>,
    known: &Known,
    size: u64,
    keys: &Keys,
    registry: &RegistryKeys,
) -> Result<Judged, Error> {
    pending.sort_by_cached_key(|pending| {
        let statement = pending.statement.statement();
        (statement.subject(), statement.chain(), statement.link().sequence)
    });
    let mut judge = Judge {
        known,
        keys,
        registry,
        position: size,
        orgs: BTreeMap::new(),
        plugins: BTreeMap::new(),
        lengths: BTreeMap::new(),
    };
    let mut judged = Judged::default();
    for pending in pending {
        match judge.statement(&pending.statement, pending.checked.is_some()) {
            Err(Rejected { refusal, ahead: true }) => judged.ahead.push((pending, refusal)),
            Err(Rejected { refusal, .. }) => judged.refused.push((pending, refusal)),
            Ok(()) => {
                let checked = pending.checked;
                let waiting = match checked {
                    Some(checked) => Waiting::Session(checked.session),
                    None => Waiting::Caller,
                };
                let release = pending.statement.clone();
                judged.entries.push(Entry { statement: pending.statement, waiting });
                if let Some(checked) = checked {
                    let statement = judge.verdict(&release, &checked)?;
                    judged.entries.push(Entry { statement, waiting: Waiting::Nobody });
                }
            }
        }
    }
    judged.plugins = judge.plugins;
    Ok(judged)
}

/// Why a statement does not follow.
struct Rejected {
    refusal: Refusal,
    /// Whether it would follow if others did before it.
    ahead: bool,
}

impl From<Refusal> for Rejected {
    fn from(refusal: Refusal) -> Self {
        Rejected { refusal, ahead: false }
    }
}

impl From<FoldError> for Rejected {
    fn from(error: FoldError) -> Self {
        let ahead = matches!(&error, FoldError::Chain { expected, found, .. }
            if found.sequence > expected.sequence);
        Rejected { refusal: refusal(error), ahead }
    }
}

struct Judge<'a> {
    known: &'a Known,
    keys: &'a Keys,
    registry: &'a RegistryKeys,
    /// Where the next statement will stand.
    position: u64,
    /// What was folded so far.
    orgs: BTreeMap<OrgName, OrgState>,
    plugins: BTreeMap<PluginName, PluginState>,
    /// How long the subjects' index files are by now.
    lengths: BTreeMap<Subject, usize>,
}

impl Judge<'_> {
    fn statement(&mut self, signed: &SignedStatement, with_verdict: bool) -> Result<(), Rejected> {
        let subject = signed.statement().subject();
        let known = self.known;
        let length = self
            .lengths
            .entry(subject.clone())
            .or_insert_with(|| known.get(&subject).map_or(0, Before::length_bytes));
        let more = ENTRY_LINE_MAX_BYTES + STATEMENT_MAX_BYTES;
        if *length + if with_verdict { 2 * more } else { more } > INDEX_FILE_MAX_BYTES {
            let detail = format!("{subject} has as many statements as the index holds");
            return Err(Refusal::new(Code::TooLarge, detail).into());
        }
        match &subject {
            Subject::Org(org) => {
                let (position, registry) = (self.position, self.registry);
                self.org(org)?.apply(position, signed, registry)?;
            }
            Subject::Plugin(plugin) => {
                if let Statement::Ownership(ownership) = signed.statement() {
                    self.org(&ownership.owner)?;
                }
                self.know_plugin(plugin)?;
                self.apply(plugin, signed)?;
            }
        }
        self.took(&subject, signed);
        Ok(())
    }

    /// The verdict on a release that was taken just now.
    fn verdict(
        &mut self,
        release: &SignedStatement,
        checked: &Checked,
    ) -> Result<SignedStatement, Error> {
        let Statement::Release(what) = release.statement() else {
            return Err(Error::Damaged {
                entity: "pending statement",
                attribute: "session".to_owned(),
            });
        };
        let state = self.plugins.get(&what.plugin);
        let Link { sequence, previous } = state.map_or(Link::FIRST, |state| state.registry_next);
        let signed = self.keys.sign_statement(&Statement::Verdict(Verdict {
            plugin: what.plugin.clone(),
            version: what.version.clone(),
            sequence,
            previous,
            statement: release.digest(),
            ruleset: checked.ruleset,
            outcome: checked.outcome,
            report: checked.report,
        }))?;
        self.apply(&what.plugin, &signed)
            .map_err(|_| Error::Broken("a verdict does not follow the release that it is about"))?;
        self.took(&Subject::Plugin(what.plugin.clone()), &signed);
        Ok(signed)
    }

    fn apply(&mut self, plugin: &PluginName, signed: &SignedStatement) -> Result<(), FoldError> {
        let authorities = Authorities { registry: self.registry, orgs: &self.orgs };
        let known = self.plugins.entry(plugin.clone());
        let state = known.or_insert_with(|| PluginState::new(plugin.clone()));
        state.apply(self.position, signed, authorities)
    }

    fn took(&mut self, subject: &Subject, signed: &SignedStatement) {
        self.position += 1;
        if let Some(length) = self.lengths.get_mut(subject) {
            *length += ENTRY_LINE_MAX_BYTES + signed.bytes().len();
        }
    }

    fn org(&mut self, org: &OrgName) -> Result<&mut OrgState, Refusal> {
        match self.orgs.entry(org.clone()) {
            btree_map::Entry::Occupied(known) => Ok(known.into_mut()),
            btree_map::Entry::Vacant(place) => {
                let subject = Subject::Org(org.clone());
                let file = match self.known.get(&subject) {
                    Some(Before::File { file, .. }) => Some(file),
                    Some(Before::Folded(_)) | None => None,
                };
                let state = fold_org(org, file, self.registry)
                    .map_err(|error| damaged(&subject, &error))?;
                Ok(place.insert(state))
            }
        }
    }

    fn know_plugin(&mut self, plugin: &PluginName) -> Result<(), Refusal> {
        if self.plugins.contains_key(plugin) {
            return Ok(());
        }
        let subject = Subject::Plugin(plugin.clone());
        let before = self.known.get(&subject);
        self.org(&plugin.org())?;
        for org in before.iter().flat_map(|before| before.orgs()) {
            self.org(&org)?;
        }
        let state = match before {
            None => PluginState::new(plugin.clone()),
            Some(Before::Folded(folded)) => folded.state.clone(),
            Some(Before::File { file, .. }) => {
                let authorities = Authorities { registry: self.registry, orgs: &self.orgs };
                let mut state = PluginState::new(plugin.clone());
                for (position, signed) in &file.entries {
                    state
                        .apply(*position, signed, authorities)
                        .map_err(|error| damaged(&subject, &error))?;
                }
                state
            }
        };
        self.plugins.insert(plugin.clone(), state);
        Ok(())
    }
}

/// What the statements in an organisation's file come to.
pub(super) fn fold_org(
    org: &OrgName,
    file: Option<&IndexFile>,
    registry: &RegistryKeys,
) -> Result<OrgState, FoldError> {
    let mut state = OrgState::new(org.clone());
    for (position, signed) in file.iter().flat_map(|file| &file.entries) {
        state.apply(*position, signed, registry)?;
    }
    Ok(state)
}

fn refusal(error: FoldError) -> Refusal {
    let code = match &error {
        FoldError::Chain { .. } => Code::ChainConflict,
        FoldError::Statement { .. } | FoldError::NoKeys { .. } => Code::InvalidSignature,
        FoldError::Twice { .. } => Code::VersionConflict,
        FoldError::NoRelease { .. } => Code::NotFound,
        FoldError::Key { .. } => Code::AlreadyExists,
        FoldError::Subject { .. } | FoldError::Verdict { .. } => Code::InvalidStatement,
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
