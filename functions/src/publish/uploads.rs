//! Upload URLs, for a new session and for one that is taken up again.

use futures_util::future::try_join_all;
use modunest_core::api::{PublishResponse, Upload};
use modunest_core::keys::{ObjectKey, SessionId, StagingKey};
use modunest_core::publish::{Missing, State, UPLOAD_WINDOW};

use crate::Functions;
use crate::error::Error;
use crate::store::sessions::Session;

impl Functions {
    pub(super) async fn uploads(
        &self,
        session: SessionId,
        missing: &[Missing],
    ) -> Result<Vec<Upload>, Error> {
        let expires_at = self.now().plus(UPLOAD_WINDOW);
        let presigned = missing.iter().map(|missing| async move {
            let key = StagingKey::Upload(session, missing.archive);
            let presigned = self.0.storage.presign(key, *missing, UPLOAD_WINDOW).await?;
            Ok::<_, Error>(Upload {
                archive: missing.archive,
                size_bytes: missing.size_bytes,
                method: presigned.method,
                url: presigned.url,
                headers: presigned.headers,
                expires_at,
            })
        });
        try_join_all(presigned).await
    }

    /// Answers again for a session that exists; `None` when it was forgotten meanwhile.
    pub(super) async fn resume(&self, id: SessionId) -> Result<Option<PublishResponse>, Error> {
        let Some(session) = self.0.store.session(id).await? else { return Ok(None) };
        if !matches!(session.state, State::Created | State::Uploading) {
            return Ok(Some(PublishResponse {
                session: Some(id),
                state: session.state,
                uploads: Vec::new(),
            }));
        }
        let Some(session) = self.0.store.extend_upload(id, self.now().plus(UPLOAD_WINDOW)).await?
        else {
            return Ok(None);
        };
        let missing = self.still_missing(&session).await?;
        if missing.is_empty() && self.note_present(&session).await? {
            return Ok(Some(PublishResponse {
                session: Some(id),
                state: State::Uploaded,
                uploads: Vec::new(),
            }));
        }
        let uploads = self.uploads(id, &missing).await?;
        Ok(Some(PublishResponse { session: Some(id), state: session.state, uploads }))
    }

    /// Archives of the session that are in neither bucket.
    pub(crate) async fn still_missing(&self, session: &Session) -> Result<Vec<Missing>, Error> {
        let release = session.release()?;
        let open = session.missing.difference(&session.arrived).map(|archive| async move {
            let staged = self.0.storage.is_staged(StagingKey::Upload(session.id, *archive)).await?;
            let there = staged || self.0.storage.is_public(ObjectKey::Blob(*archive)).await?;
            Ok::<_, Error>((!there).then_some(*archive))
        });
        let open = try_join_all(open).await?;
        let sized = open.into_iter().flatten().filter_map(|archive| {
            let build = release.builds.iter().find(|build| build.archive == archive)?;
            Some(Missing { archive, size_bytes: build.size_bytes })
        });
        Ok(sized.collect())
    }

    /// Everything is there, whatever became of the events that should have told: goes on as
    /// they would. False when somebody else did.
    pub(crate) async fn note_present(&self, session: &Session) -> Result<bool, Error> {
        let moved = self.0.store.uploaded(session.id, self.now()).await?.is_some();
        if moved {
            self.start_without_upload(session.id).await;
        }
        Ok(moved)
    }
}
