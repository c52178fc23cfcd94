//! Everything for a first resolution in one round trip (`modunest_core::closure`), where the
//! registry offers it.
//!
//! # When
//!
//! A sync asks for a closure when no head was ever believed, or when it wants plugins of
//! which nothing was read under the last head. In every other case the tree is known, and
//! single reads fetch only what changed: a conditional head, mostly nothing else. Plugins
//! that were read are not asked for again, so what is new comes alone.
//!
//! # What is believed
//!
//! Nothing but what single reads would have led to: the head goes through the checks of
//! [`Client::refresh`], which may fetch the checkpoint and tiles, and an object is kept only if the tree below that head names it and
//! it hashes to its name. All of it is proven again when it is read from the cache. Whatever
//! goes wrong here is logged, and single reads do the work.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use modunest_core::closure::{
    CONTENT_TYPE, ClosureRequest, FrameError, FrameReader, ReceiveError, Received,
};
use modunest_core::index::{BIN_MAX_BYTES, Bin, Head, NODE_BYTES, Node, Slot};
use modunest_core::keys::ObjectKey;
use modunest_core::name::PluginName;
use modunest_core::relation::HostFacts;
use modunest_core::resolve::Root;
use modunest_core::statement::Subject;
use reqwest::header::CONTENT_TYPE as CONTENT_TYPE_FIELD;

use super::{Client, Error, read_head};

/// How long an answer may take in all. What came until then is kept; single reads, which may
/// take longer, do the rest.
const CLOSURE_TIMEOUT: Duration = Duration::from_secs(30);

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
}

impl Failure {
    /// Whether the network, or this machine, may have done it.
    fn is_nobodys_lie(&self) -> bool {
        match self {
            Failure::Read(error) => error.kind() != super::Kind::Refused,
            Failure::Timeout => true,
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
        let request = ClosureRequest::fitting(roots, Some(host.clone()));
        if request.plugins.is_empty() {
            return None;
        }
        let mut taken = Taken::default();
        let receive = self.receive(&request, &mut taken);
        let outcome = match tokio::time::timeout(CLOSURE_TIMEOUT, receive).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::Timeout),
        };
        let Taken { head, objects, bytes } = taken;
        let head = match head {
            Some(shown) => match self.believe_shown(shown).await {
                Ok(head) => Some(head),
                Err(error) => {
                    tracing::warn!(%error, "the head of the closure is not believed; asking for it");
                    None
                }
            },
            None => None,
        };
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

    async fn receive(&self, request: &ClosureRequest, taken: &mut Taken) -> Result<(), Failure> {
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
        let mut received: Option<Received> = None;
        while let Some(piece) = self.fetcher.piece(&mut response).await? {
            reader.push(&piece)?;
            while let Some(frame) = reader.next_frame()? {
                // The reader's first frame is the head, and no other is.
                let Some(received) = &mut received else {
                    let head = read_head(&frame.bytes, &*self.authority()?)?;
                    received = Some(Received::new(head.index));
                    taken.head = Some(frame.bytes);
                    continue;
                };
                received.accept(frame.key, &frame.bytes)?;
                self.cache.keep(frame.key, &frame.bytes)?;
                taken.objects += 1;
                taken.bytes += frame.bytes.len();
            }
        }
        Ok(reader.finish()?)
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
