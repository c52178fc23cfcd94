//! Everything for a first resolution in one round trip (`modunest_core::closure`), where the
//! registry offers it.
//!
//! # When
//!
//! A sync asks for a closure when no head was ever believed, or when it wants plugins of
//! which nothing was read under the last head. In every other case the tree is known: what few
//! entries the log has gained are read themselves, and where they are many, one request brings
//! all plugins that changed to where they stand now ([`ClosureRequest::since`]). Plugins that
//! were read are not asked for again, so what is new comes alone.
//!
//! # What is believed
//!
//! Nothing but what single reads would have led to: the head goes through the checks of
//! [`Client::refresh`], which may fetch the checkpoint and tiles, and an object is kept only if
//! the tree below that head names it and it hashes to its name. All of it is proven again when
//! it is read from the cache. That the log has the statements is proven by the answer's proof
//! against the root that the head names; where there is none, or it proves nothing, tiles are
//! read as ever. Whatever goes wrong here is logged, and single reads do the work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use modunest_core::VersionReq;
use modunest_core::closure::{
    CONTENT_TYPE, ClosureRequest, FrameError, FrameReader, Part, ReceiveError, Received,
};
use modunest_core::index::{BIN_MAX_BYTES, Bin, Head, LogHead, NODE_BYTES, Node, Slot};
use modunest_core::keys::ObjectKey;
use modunest_core::name::PluginName;
use modunest_core::relation::HostFacts;
use modunest_core::resolve::Root;
use modunest_core::statement::Subject;
use modunest_tlog::TreeHash;
use reqwest::header::CONTENT_TYPE as CONTENT_TYPE_FIELD;

use super::state::Kept;
use super::tiles::Leaf;
use super::{Client, Error, read_head};

/// How long an answer may take in all. What came until then is kept; single reads, which may
/// take longer, do the rest.
const CLOSURE_TIMEOUT: Duration = Duration::from_secs(30);

/// Plugins below which single reads, three levels of them, are as quick as one answer.
const TOGETHER_MIN: usize = 4;

/// Statements that a closure proved, by their positions, under the log that its head named.
#[derive(Default)]
pub(super) struct Together {
    log: Option<LogHead>,
    leaves: BTreeMap<u64, TreeHash>,
}

/// Why an answer was of no use, or not of all.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("it is not offered (status {0})")]
    NotOffered(u16),
    #[error(transparent)]
    Read(#[from] Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Object(#[from] ReceiveError),
    #[error("it took more than {} s", CLOSURE_TIMEOUT.as_secs())]
    Timeout,
    #[error("it is under another head than the one that is believed")]
    OtherHead,
}

impl Failure {
    /// Whether the network, or this machine, may have done it.
    fn is_nobodys_lie(&self) -> bool {
        match self {
            Failure::Read(error) => error.kind() != super::Kind::Refused,
            Failure::Timeout | Failure::OtherHead => true,
            Failure::NotOffered(_) | Failure::Frame(_) | Failure::Object(_) => false,
        }
    }
}

/// What came of an answer.
#[derive(Default)]
struct Taken {
    /// The head, verified by itself only.
    head: Option<Vec<u8>>,
    objects: usize,
    bytes: usize,
}

impl Client {
    /// Those of `plugins` of which nothing was read under the newest believed head: all of
    /// them before the first, and those that did not exist then.
    pub(crate) fn unread<'a>(
        &self,
        plugins: impl IntoIterator<Item = &'a PluginName>,
    ) -> BTreeSet<PluginName> {
        let root = self.kept().and_then(|kept| self.cached_node(ObjectKey::Node(kept.head.index)));
        let unread = |plugin: &&PluginName| {
            let subject = Subject::Plugin((*plugin).clone());
            let is_current = self.rows().get(&subject).is_some_and(|row| row.current);
            !is_current && root.as_ref().is_none_or(|root| !self.is_read(root, plugin))
        };
        plugins.into_iter().filter(unread).cloned().collect()
    }

    /// Asks for the closure of `roots` and keeps what is proven of it. Answers the head, if
    /// it is believed now: then no other need be asked for. `None` says nothing about the
    /// registry but that single reads must do.
    pub(crate) async fn prefetch(
        &self,
        roots: impl IntoIterator<Item = Root>,
        host: &HostFacts,
    ) -> Option<Head> {
        if self.no_closure.load(Ordering::Relaxed) {
            return None;
        }
        if let Err(error) = self.refresh_trust(false).await {
            tracing::debug!(%error, "no closure without a trust root");
            return None;
        }
        let request = ClosureRequest::fitting(roots, Some(host.clone()), None);
        if request.plugins.is_empty() {
            return None;
        }
        let shown = self.take_answer(&request, None).await?;
        match self.believe_shown(shown).await {
            Ok(head) => Some(head),
            Err(error) => {
                tracing::warn!(%error, "the head of the closure is not believed; asking for it");
                None
            }
        }
    }

    /// Fetches how plugins stand under the kept head, in one answer for those that were read
    /// before and one for the others, and keeps what is proven of it. What is not to be had
    /// like that is left to single reads.
    pub(super) async fn read_together(&self, subjects: &BTreeSet<&Subject>, kept: &Kept) {
        if self.no_closure.load(Ordering::Relaxed) || subjects.len() < TOGETHER_MIN {
            return;
        }
        let root = self.cached_node(ObjectKey::Node(kept.head.index));
        // How far each is known; 0 where it is not.
        let mut unread: Vec<(u64, PluginName)> = Vec::new();
        for subject in subjects {
            let Subject::Plugin(plugin) = subject else { continue };
            if root.as_ref().is_none_or(|root| !self.is_read(root, plugin)) {
                let whole_to = self.rows().get(*subject).map_or(0, |row| row.whole_to);
                unread.push((whole_to, plugin.clone()));
            }
        }
        let (known, new): (Vec<_>, Vec<_>) =
            unread.into_iter().partition(|(whole_to, _)| *whole_to > 0);
        for plugins in [new, known] {
            let Some(since) = plugins.iter().map(|(whole_to, _)| *whole_to).min() else { continue };
            if plugins.len() < TOGETHER_MIN {
                continue;
            }
            let any = |(_, plugin)| Root { plugin, requirement: VersionReq::STAR };
            let roots = plugins.into_iter().map(any);
            let request = ClosureRequest::fitting(roots, None, Some(since));
            self.take_answer(&request, Some(&kept.head)).await;
        }
    }

    /// Leaves out what a closure proved to be in this log.
    pub(super) fn leave_out_proven(&self, leaves: &mut Vec<Leaf>, log: &LogHead) {
        let mut together = self.together.lock().unwrap_or_else(PoisonError::into_inner);
        if together.log.as_ref() == Some(log) {
            leaves.retain(|leaf| together.leaves.remove(&leaf.position) != Some(leaf.hash));
        }
    }

    /// Asks, and keeps what is proven of the answer, which must be `under` a head where one is
    /// given. Answers the head that came, which is verified by itself only.
    async fn take_answer(&self, request: &ClosureRequest, under: Option<&Head>) -> Option<Vec<u8>> {
        let mut taken = Taken::default();
        let receive = self.receive(request, under, &mut taken);
        let outcome = match tokio::time::timeout(CLOSURE_TIMEOUT, receive).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::Timeout),
        };
        let Taken { head, objects, bytes } = taken;
        match outcome {
            Ok(()) => tracing::debug!(objects, bytes, "a closure was read"),
            Err(error @ Failure::NotOffered(_)) => {
                tracing::debug!(%error, "no closure; reading object by object from now on");
                self.no_closure.store(true, Ordering::Relaxed);
            }
            Err(error) if error.is_nobodys_lie() => {
                tracing::debug!(%error, objects, "the closure broke off; reading the rest singly");
            }
            Err(error) => {
                tracing::warn!(%error, objects, "the closure is not right; reading the rest singly");
            }
        }
        head
    }

    async fn receive(
        &self,
        request: &ClosureRequest,
        under: Option<&Head>,
        taken: &mut Taken,
    ) -> Result<(), Failure> {
        let mut response = self.fetcher.closure(request.to_json()).await?;
        let status = response.status().as_u16();
        let kind = response.headers().get(CONTENT_TYPE_FIELD);
        match status {
            200 if kind.is_some_and(|kind| kind == CONTENT_TYPE) => {}
            // Some file servers answer everything with a page.
            200 | 404 | 405 | 501 => return Err(Failure::NotOffered(status)),
            _ => return Err(self.fetcher.closure_status(status).into()),
        }
        let mut reader = FrameReader::new();
        let mut begun: Option<(LogHead, Received)> = None;
        while let Some(piece) = self.fetcher.piece(&mut response).await? {
            reader.push(&piece)?;
            while let Some(frame) = reader.next_frame()? {
                // The reader's first frame is the head, and no other is; the last may be the proof.
                let Some((_, received)) = &mut begun else {
                    let head = read_head(&frame.bytes, &*self.authority()?)?;
                    if under
                        .is_some_and(|under| (under.index, &under.log) != (head.index, &head.log))
                    {
                        return Err(Failure::OtherHead);
                    }
                    let received = Received::new(head.index, request.since);
                    begun = Some((head.log, received));
                    taken.head = Some(frame.bytes);
                    continue;
                };
                let Part::Object(key) = frame.part else {
                    if let Some((log, received)) = begun.take() {
                        self.proved_together(received.prove(&frame.bytes, &log)?, log);
                    }
                    continue;
                };
                received.accept(key, &frame.bytes)?;
                self.cache.keep(key, &frame.bytes)?;
                taken.objects += 1;
                taken.bytes += frame.bytes.len();
            }
        }
        Ok(reader.finish()?)
    }

    fn proved_together(&self, leaves: BTreeMap<u64, TreeHash>, log: LogHead) {
        let mut together = self.together.lock().unwrap_or_else(PoisonError::into_inner);
        if together.log.as_ref() != Some(&log) {
            *together = Together { log: Some(log), leaves: BTreeMap::new() };
        }
        together.leaves.extend(leaves);
    }

    fn is_read(&self, root: &Node, plugin: &PluginName) -> bool {
        let subject = Subject::Plugin(plugin.clone());
        let slot = Slot::of(&subject);
        let file = root
            .child(slot.node)
            .and_then(|node| self.cached_node(ObjectKey::Node(node))?.child(slot.bin))
            .and_then(|bin| self.cache.object(ObjectKey::Bin(bin), BIN_MAX_BYTES).ok()?)
            .and_then(|bytes| Bin::parse(slot, &bytes).ok()?.get(&subject));
        file.is_some_and(|file| self.cache.has(ObjectKey::Index(file)))
    }

    /// A node, if the cache has one: what cannot be read counts as not read, and reading it
    /// for use will say why.
    fn cached_node(&self, key: ObjectKey) -> Option<Node> {
        let bytes = self.cache.object(key, NODE_BYTES).ok().flatten()?;
        Node::parse(&bytes).ok()
    }
}
