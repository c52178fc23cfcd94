//! Check 1: the trust root, asked now and then, and whom the registry is believed for since.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use modunest_core::keys::ObjectKey;
use modunest_core::time::Timestamp;

use super::fetch::Answer;
use super::state::Rows;
use super::{Authority, Client, Error};
use crate::trust::{self, Trusted};

/// How often the trust root is asked for news while nothing is wrong: a stolen key stays
/// believed for so long at most, and an hour costs two small requests.
const TRUST_FRESH_FOR: Duration = Duration::from_secs(60 * 60);

/// What the trust root said last.
#[derive(Clone, Debug)]
pub(super) struct Believed {
    pub(super) authority: Arc<Authority>,
    /// From when on it must be said again; `None` for pinned keys.
    pub(super) expires: Option<Timestamp>,
}

impl Client {
    /// Whom the registry is believed for, now.
    ///
    /// # Errors
    /// [`Error::Trust`] when nothing was ever fetched, or what was has expired.
    pub(crate) fn authority(&self) -> Result<Arc<Authority>, Error> {
        let now = modunest_runtime::clock::now();
        if let Some(believed) = self.believed()
            && believed.expires.is_none_or(|expires| now < expires)
        {
            return Ok(believed.authority);
        }
        let nothing = trust::Error::NothingKept;
        let updater = self.updater.as_ref().ok_or(Error::Trust(Box::new(nothing)))?;
        let trusted = updater.kept(now).map_err(|error| Error::Trust(Box::new(error)))?;
        self.adopt(&trusted)
    }

    /// Asks the trust root for news, if that was long ago or `at_once`. Answers whether it
    /// was asked.
    ///
    /// # Errors
    /// [`Error::Trust`] and [`Error::Origin`].
    pub(super) async fn refresh_trust(&self, at_once: bool) -> Result<bool, Error> {
        let Some(updater) = &self.updater else { return Ok(false) };
        let mut asked_at = self.trust_asked.lock().await;
        if !at_once && asked_at.is_some_and(|at| at.elapsed() < TRUST_FRESH_FOR) {
            return Ok(false);
        }
        let fetcher = Arc::new(self.fetcher.share());
        let fetch = move |key: ObjectKey, limit: usize| {
            let fetcher = Arc::clone(&fetcher);
            async move {
                match fetcher.get(key, limit, None, 0).await {
                    Ok(Answer::Body { bytes, .. }) => Ok(Some(bytes)),
                    Ok(Answer::NotModified) => {
                        Err(Error::Status { url: fetcher.url(key), status: 304 })
                    }
                    Err(Error::Status { status: 404, .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        };
        let refreshed = updater.refresh(fetch, modunest_runtime::clock::now()).await;
        let trusted = refreshed.map_err(|error| Error::Trust(Box::new(error)))?;
        self.adopt(&trusted)?;
        if trusted.offline.is_none() {
            *asked_at = Some(Instant::now());
        }
        Ok(true)
    }

    /// Takes what the trust root says. What it no longer vouches for is let go of.
    fn adopt(&self, trusted: &Trusted) -> Result<Arc<Authority>, Error> {
        let authority = Arc::new(Authority::from(&trusted.config));
        if authority.origin != self.settings.origin {
            let (found, expected) = (authority.origin.clone(), self.settings.origin.clone());
            return Err(Error::Origin { found, expected });
        }
        let before = self.believed();
        if before.is_none_or(|before| *before.authority != *authority) {
            self.restore(&authority)?;
        }
        let believed =
            Believed { authority: Arc::clone(&authority), expires: Some(trusted.expires) };
        *self.believed.lock().unwrap_or_else(PoisonError::into_inner) = Some(believed);
        Ok(authority)
    }

    /// Reads what was kept, as far as `authority` vouches for it.
    pub(super) fn restore(&self, authority: &Authority) -> Result<(), Error> {
        let (kept, time_seen) = self.state.read(authority)?;
        let rows = match &kept {
            Some(kept) => self.state.read_proven(&kept.head.log)?,
            None => Rows::new(),
        };
        *self.rows() = rows;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept.map(Arc::new);
        *self.time_seen.lock().unwrap_or_else(PoisonError::into_inner) = time_seen;
        Ok(())
    }

    fn believed(&self) -> Option<Believed> {
        self.believed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
