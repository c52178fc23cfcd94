//! Downloads, counted beside the path: noted in memory as they are answered, and told to the
//! API in batches some seconds later.
//!
//! No read waits for any of it. What is kept is bounded: while the API does not answer, one
//! count for each blob and day grows, and a batch that was sent already waits, as it was, to
//! be sent again under its own name. What goes beyond the bounds is lost, and the log says
//! how much. A process that dies loses the seconds that it had not told of.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use modunest_core::api::{
    BatchId, DOWNLOAD_COUNT_MAX, DOWNLOADS_MAX, DOWNLOADS_PATH, Day, DownloadBatch, Downloaded,
};
use modunest_core::digest::Digest;
use modunest_runtime::http::client;
use modunest_runtime::{clock, random};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use url::Url;

use super::origin::chain;
use super::{Error, forward};

/// How often the API is told. A developer who loads a plugin and asks for its downloads
/// should not have to wait, and a busy server sends one request in that time, not thousands.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// Blobs and days counted at once. Each takes about 100 bytes, so some 2 MB.
const NOTED_MAX: usize = 20_000;
/// How often a batch is sent before it is given up. With pauses that double up to
/// [`PAUSE_MAX`] this takes some ten minutes, longer than a deployment or a hiccup.
const TRIES_MAX: u32 = 14;
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long the API may take to count a batch.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last batches may take when this process ends, which is not the time to wait
/// for an API that is gone.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Counts downloads and tells them to the API. Clones count together.
#[derive(Clone)]
pub struct Downloads(Arc<Handle>);

struct Handle {
    noted: Arc<Mutex<Noted>>,
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Noted {
    counts: HashMap<(Digest, Day), u64>,
    lost: u64,
}

/// The token stays out of logs.
impl fmt::Debug for Downloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Downloads").finish_non_exhaustive()
    }
}

impl Downloads {
    /// Starts to count, inside a Tokio runtime. `token` has the scope `count`.
    ///
    /// # Errors
    /// [`Error`], when `api_origin` is more than an origin or no client can be made.
    pub fn start(api_origin: Url, token: String) -> Result<Downloads, Error> {
        Self::start_with(api_origin, token, TELL_EVERY)
    }

    fn start_with(api_origin: Url, token: String, every: Duration) -> Result<Downloads, Error> {
        let mut url = forward::plain_origin(api_origin)?;
        url.set_path(DOWNLOADS_PATH);
        let noted = Arc::new(Mutex::new(Noted::default()));
        let (stop, stopped) = watch::channel(false);
        let teller = Teller {
            client: client()?,
            url,
            token,
            every,
            noted: Arc::clone(&noted),
            outbox: VecDeque::new(),
            tries: 0,
        };
        let task = Mutex::new(Some(tokio::spawn(teller.run(stopped))));
        Ok(Downloads(Arc::new(Handle { noted, stop, task })))
    }

    /// Counts one download.
    pub(super) fn note(&self, blob: Digest) {
        let day = Day::of(clock::now());
        let mut noted = lock(&self.0.noted);
        let full = noted.counts.len() >= NOTED_MAX;
        match noted.counts.get_mut(&(blob, day)) {
            Some(count) => *count += 1,
            None if full => noted.lost += 1,
            None => {
                noted.counts.insert((blob, day), 1);
            }
        }
    }

    /// Tells the API of the last downloads, for a few seconds at most, and ends. To be called
    /// after the server has ended and before the API does.
    pub async fn stop(&self) {
        self.0.stop.send_replace(true);
        let task = self.0.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "downloads were counted no more");
        }
    }
}

fn lock(noted: &Mutex<Noted>) -> MutexGuard<'_, Noted> {
    // Nothing in here panics, and a count is right after every line.
    noted.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What became of a try.
enum Told {
    /// It is counted.
    Counted,
    /// It may be counted later.
    NotNow(String),
    /// It will never be.
    Never(String),
}

struct Teller {
    client: reqwest::Client,
    url: Url,
    token: String,
    every: Duration,
    noted: Arc<Mutex<Noted>>,
    /// Batches that were made: each is sent as it is until it is counted or given up.
    outbox: VecDeque<DownloadBatch>,
    /// How often the first of them was sent.
    tries: u32,
}

impl Teller {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let mut next = Instant::now() + self.every;
        loop {
            tokio::select! {
                // An error means that nobody can note a download any more.
                _ = stopped.wait_for(|stop| *stop) => break,
                () = sleep_until(next) => {}
            }
            let told = async {
                // Only now: what waits in memory still adds up to fewer entries.
                if self.outbox.is_empty() {
                    self.fill();
                }
                self.tell().await;
            };
            // A try that is cut off may have been counted; its name stays the same.
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => break,
                () = told => {}
            }
            let pause = self.every.saturating_mul(1 << self.tries.min(10));
            next = Instant::now() + pause.min(PAUSE_MAX.max(self.every));
        }
        self.fill();
        if timeout(LAST_WORDS, self.tell()).await.is_err() || !self.outbox.is_empty() {
            let lost: u64 = self.outbox.iter().map(sum).sum();
            tracing::warn!(lost, "the API did not take the last downloads; they are not counted");
        }
    }

    /// Makes batches of what was noted.
    fn fill(&mut self) {
        let Noted { counts, lost } = std::mem::take(&mut *lock(&self.noted));
        if lost > 0 {
            tracing::warn!(lost, "more blobs were downloaded than are counted at once");
        }
        let entries: Vec<Downloaded> = counts
            .into_iter()
            .flat_map(|((blob, day), count)| {
                // An entry has an upper bound; one more entry takes the rest.
                let most = u64::from(DOWNLOAD_COUNT_MAX);
                let full = std::iter::repeat_n(most, usize::try_from(count / most).unwrap_or(0));
                full.chain([count % most])
                    .filter_map(|count| u32::try_from(count).ok().filter(|count| *count > 0))
                    .map(move |count| Downloaded { blob, day, count })
            })
            .collect();
        self.outbox.extend(entries.chunks(DOWNLOADS_MAX).map(|downloads| DownloadBatch {
            id: BatchId::from_bytes(random::bytes()),
            downloads: downloads.to_vec(),
        }));
    }

    /// Sends what is in the outbox, until it is empty or the API has no time.
    async fn tell(&mut self) {
        while let Some(batch) = self.outbox.front() {
            self.tries += 1;
            match self.send(batch).await {
                Told::Counted => {}
                Told::NotNow(why) if self.tries < TRIES_MAX => {
                    tracing::info!(why, tries = self.tries, "the API does not count downloads now");
                    return;
                }
                Told::NotNow(why) | Told::Never(why) => {
                    let lost = sum(batch);
                    tracing::warn!(why, tries = self.tries, lost, "downloads are not counted");
                }
            }
            self.outbox.pop_front();
            self.tries = 0;
        }
    }

    async fn send(&self, batch: &DownloadBatch) -> Told {
        let request = self.client.post(self.url.clone()).bearer_auth(&self.token).json(batch);
        let status = match timeout(ANSWER_TIMEOUT, request.send()).await {
            Ok(Ok(answer)) => answer.status(),
            Ok(Err(error)) => return Told::NotNow(chain(&error)),
            Err(_elapsed) => return Told::NotNow("no answer in time".to_owned()),
        };
        let later = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        match status {
            _ if status.is_success() => Told::Counted,
            _ if later => Told::NotNow(format!("status {status}")),
            _ => Told::Never(format!("status {status}")),
        }
    }
}

fn sum(batch: &DownloadBatch) -> u64 {
    batch.downloads.iter().map(|entry| u64::from(entry.count)).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use axum::Json;
    use axum::extract::State;
    use axum::http::HeaderMap;
    use axum::routing::post;

    use super::*;

    const SOON: Duration = Duration::from_millis(5);

    #[derive(Default)]
    struct Api {
        batches: Vec<DownloadBatch>,
        refuse: VecDeque<StatusCode>,
    }

    type Shared = Arc<Mutex<Api>>;

    async fn count(
        State(api): State<Shared>,
        headers: HeaderMap,
        Json(batch): Json<DownloadBatch>,
    ) -> StatusCode {
        assert_eq!(headers["authorization"], "Bearer mnt_test");
        assert_eq!(batch.check(clock::now()), Ok(()));
        let mut api = api.lock().unwrap();
        api.batches.push(batch);
        api.refuse.pop_front().unwrap_or(StatusCode::NO_CONTENT)
    }

    /// An API that answers with these statuses first, and counts everything then.
    async fn api(refuse: &[StatusCode]) -> (Shared, Url) {
        let api: Shared = Arc::default();
        api.lock().unwrap().refuse = refuse.iter().copied().collect();
        let router = axum::Router::new().route("/v1/downloads", post(count));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let router = router.with_state(Arc::clone(&api));
        tokio::spawn(super::super::serve(listener, router, std::future::pending()));
        (api, url)
    }

    async fn until(api: &Shared, done: impl Fn(&Api) -> bool) {
        for _ in 0..2_000 {
            if done(&api.lock().unwrap()) {
                return;
            }
            tokio::time::sleep(SOON).await;
        }
        panic!("not in time");
    }

    #[tokio::test]
    async fn what_was_noted_is_told_together() {
        let (api, url) = api(&[]).await;
        let downloads = Downloads::start(url, "mnt_test".to_owned()).unwrap();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        for blob in [a, b, a, a] {
            downloads.note(blob);
        }
        downloads.stop().await;
        let mut told = api.lock().unwrap().batches.concat_entries();
        told.sort_unstable();
        let mut expected = [(a, 3), (b, 1)];
        expected.sort_unstable();
        assert_eq!(told, expected);
        downloads.stop().await;
    }

    trait Entries {
        fn concat_entries(&self) -> Vec<(Digest, u32)>;
    }

    impl Entries for Vec<DownloadBatch> {
        fn concat_entries(&self) -> Vec<(Digest, u32)> {
            let entries = self.iter().flat_map(|batch| &batch.downloads);
            entries.map(|entry| (entry.blob, entry.count)).collect()
        }
    }

    #[tokio::test]
    async fn a_failing_api_is_told_the_same_again() {
        let busy = StatusCode::SERVICE_UNAVAILABLE;
        let (api, url) = api(&[busy, StatusCode::TOO_MANY_REQUESTS, busy]).await;
        let downloads = Downloads::start_with(url, "mnt_test".to_owned(), SOON).unwrap();
        downloads.note(Digest::of(b"a"));
        until(&api, |api| !api.batches.is_empty()).await;
        // Noted while the first batch waits: part of the next, never of the one that was sent.
        downloads.note(Digest::of(b"a"));
        until(&api, |api| api.batches.len() >= 5).await;
        downloads.stop().await;
        let batches = &api.lock().unwrap().batches;
        // A batch whose answer came too late is told again too, so five is the least.
        let mut told: Vec<_> = batches.clone();
        told.dedup();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(batches[..4].iter().all(|batch| *batch == told[0]), "{batches:?}");
        assert_ne!(told[1].id, told[0].id);
    }

    #[tokio::test]
    async fn what_will_never_be_counted_is_given_up() {
        let (api, url) = api(&[StatusCode::FORBIDDEN]).await;
        let downloads = Downloads::start_with(url, "mnt_test".to_owned(), SOON).unwrap();
        downloads.note(Digest::of(b"a"));
        until(&api, |api| !api.batches.is_empty()).await;
        downloads.note(Digest::of(b"b"));
        until(&api, |api| api.batches.len() == 2).await;
        downloads.stop().await;
        let told = api.lock().unwrap().batches.concat_entries();
        assert_eq!(told, [(Digest::of(b"a"), 1), (Digest::of(b"b"), 1)]);
    }

    #[tokio::test]
    async fn nothing_grows_without_bounds() {
        let nowhere: Url = "http://127.0.0.1:9".parse().unwrap();
        let downloads =
            Downloads::start_with(nowhere, "mnt_test".to_owned(), Duration::from_secs(3600));
        let downloads = downloads.unwrap();
        for number in 0..NOTED_MAX + 7 {
            downloads.note(Digest::of(&number.to_be_bytes()));
        }
        downloads.note(Digest::of(&0_usize.to_be_bytes()));
        {
            let noted = lock(&downloads.0.noted);
            let day = Day::of(clock::now());
            assert_eq!((noted.counts.len(), noted.lost), (NOTED_MAX, 7));
            assert!(noted.counts[&(Digest::of(&0_usize.to_be_bytes()), day)] >= 1);
        }
        // An API that is gone delays the end by seconds at most.
        timeout(LAST_WORDS * 2, downloads.stop()).await.unwrap();
    }

    #[test]
    fn counts_beyond_an_entry_take_several() {
        let noted = Noted {
            counts: HashMap::from([(
                (Digest::of(b"a"), Day::of(clock::now())),
                u64::from(DOWNLOAD_COUNT_MAX) * 2 + 5,
            )]),
            lost: 0,
        };
        let mut teller = Teller {
            client: client().unwrap(),
            url: "http://127.0.0.1:9".parse().unwrap(),
            token: String::new(),
            every: SOON,
            noted: Arc::new(Mutex::new(noted)),
            outbox: VecDeque::new(),
            tries: 0,
        };
        teller.fill();
        assert_eq!(sum(&teller.outbox[0]), 2_000_005);
        assert_eq!(teller.outbox[0].check(clock::now()), Ok(()));
    }
}
