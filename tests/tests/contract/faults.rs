//! An origin that fails in every way, in front of readers: they get the right bytes or an
//! honest error, and once it is well again, nothing wrong is left anywhere.

use std::time::{Duration, Instant};

use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;
use modunest_core::problem::Code;
use modunest_tests::client::Answer;
use modunest_tests::origin::{Mood, Origin};
use modunest_tests::raw::{Ask, Broken};
use modunest_tests::site::{PUBLIC, Server, noise};
use modunest_tests::workerd::Worker;
use url::Url;

use crate::objects::discovery;
use crate::shells::worker;

/// Longest that a reader waits while something fails, which is longer than the shells do: beyond,
/// an answer has not come whole, which is honest.
const READER_LIMIT: Duration = Duration::from_secs(12);
/// How long the plan asks an origin last that has failed.
const COOL_DOWN: Duration = Duration::from_millis(modunest_edge::plan::COOL_DOWN_MS);

const MOODS: [Mood; 10] = [
    Mood::Down,
    Mood::Status(500),
    Mood::Status(503),
    Mood::Status(403),
    Mood::Truncate,
    Mood::Short,
    Mood::Long,
    Mood::Wrong,
    Mood::Stall,
    Mood::Slow,
];

/// Objects of one mood, so that none is in anybody's memory.
struct Fresh {
    small: Vec<u8>,
    large: Vec<u8>,
    head: Vec<u8>,
}

impl Fresh {
    fn new(number: usize) -> Fresh {
        let numbered = |size| {
            let mut content = noise(size);
            content[..8].copy_from_slice(&(number as u64).to_le_bytes());
            content
        };
        let head = format!("modunest/head/v1\n{{\"epoch\":{number}}}\n").into_bytes();
        Fresh { small: numbered(5_000), large: numbered(3 * 1024 * 1024), head }
    }

    fn put(&self, origin: &Origin) {
        for content in [&self.small, &self.large] {
            origin.put(&ObjectKey::Blob(Digest::of(content)), content);
        }
        origin.put(&ObjectKey::Head, &self.head);
    }
}

/// What a reader must get of a path when all is well.
#[derive(Clone, Copy)]
enum Right<'a> {
    Bytes(&'a [u8]),
    Part(&'a [u8]),
    Nothing,
}

fn is_right(answer: &Answer, right: Right<'_>) -> bool {
    match right {
        Right::Bytes(bytes) => answer.status == 200 && answer.body == bytes,
        Right::Part(bytes) => answer.status == 206 && answer.body == bytes,
        Right::Nothing => answer.status == 404,
    }
}

/// What comes within the time that a reader takes; all the time it needs, where all is well.
async fn ask(ask: &Ask, base: &Url, mood: Mood) -> Option<Result<Answer, Broken>> {
    match mood {
        Mood::Healthy => Some(ask.send(base).await),
        _ => tokio::time::timeout(READER_LIMIT, ask.send(base)).await.ok(),
    }
}

/// Asks for everything at once, and judges what comes. Lies about what streams nobody can see
/// before the last byte has gone: agents prove what they fetch.
async fn honest(base: &Url, fresh: &Fresh, mood: Mood, must_be_right: bool) {
    let blob = |content: &[u8]| Ask::get(&ObjectKey::Blob(Digest::of(content)).path());
    let absent = ObjectKey::Blob(Digest::of(format!("absent {mood:?}").as_bytes())).path();
    let asked = [
        ("small", blob(&fresh.small), Right::Bytes(&fresh.small), false),
        ("large", blob(&fresh.large), Right::Bytes(&fresh.large), true),
        (
            "part",
            blob(&fresh.large).field("range", "bytes=1000-1999999"),
            Right::Part(&fresh.large[1000..2_000_000]),
            true,
        ),
        ("head", Ask::get("/head"), Right::Bytes(&fresh.head), false),
        ("absent", Ask::get(&absent), Right::Nothing, false),
    ];
    let answers = asked.iter().map(|(_, request, ..)| ask(request, base, mood));
    let answers = futures_util::future::join_all(answers).await;
    for ((what, _, right, streams), answer) in asked.iter().zip(answers) {
        let good = answer
            .as_ref()
            .is_some_and(|answer| answer.as_ref().is_ok_and(|answer| is_right(answer, *right)));
        if must_be_right {
            assert!(good, "{mood:?}, {what}: {answer:?}");
            continue;
        }
        match answer {
            // Nothing came, or not all of what was announced: the reader knows.
            None | Some(Err(_)) => {}
            Some(Ok(_)) if good => {}
            Some(Ok(answer)) if answer.status.is_server_error() => {
                assert_eq!(answer.problem().code, Code::Unavailable, "{mood:?}, {what}");
                assert_eq!(answer.header("cache-control"), "no-store", "{mood:?}, {what}");
            }
            Some(Ok(answer)) => {
                // Nor is a head's signature looked at before the agent does.
                let unseen = *streams || *what == "head";
                let lies = matches!(mood, Mood::Wrong | Mood::Short | Mood::Long);
                let (status, length) = (answer.status, answer.body.len());
                assert!(unseen && lies, "{mood:?}, {what}: {status} with {length} bytes");
            }
        }
    }
}

/// Puts every mood to a shell.
async fn survives(base: &Url, origin: &Origin) {
    for mood in MOODS {
        survives_one(mood, base, origin, None).await;
    }
}

async fn survives_one(mood: Mood, base: &Url, origin: &Origin, second: Option<&Origin>) {
    let fresh = Fresh::new(MOODS.iter().position(|one| *one == mood).unwrap());
    fresh.put(origin);
    if let Some(second) = second {
        fresh.put(second);
    }
    origin.is_now(mood);
    // Before the first byte the second origin can take over; behind it, nobody can.
    let sees = matches!(mood, Mood::Down | Mood::Slow | Mood::Status(_));
    honest(base, &fresh, mood, second.is_some() && sees).await;
    origin.is_now(Mood::Healthy);
    for time in ["first", "second"] {
        let began = Instant::now();
        honest(base, &fresh, Mood::Healthy, true).await;
        assert!(began.elapsed() < READER_LIMIT, "slow the {time} time after {mood:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_native_shell_is_honest() {
    let origin = Origin::start().await;
    let router = modunest_edge::native::router(modunest_edge::native::Config {
        aws: origin.as_s3(),
        public_bucket: PUBLIC.to_owned(),
        api_origin: None,
        discovery: discovery(),
        memory_cache_bytes: modunest_edge::native::MEMORY_CACHE_BYTES,
        downloads: None,
    });
    let edge = Server::start(router.unwrap()).await;
    survives(&edge.url, &origin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_with_one_origin_is_honest() {
    let origin = Origin::start().await;
    let worker = worker(None).var("ORIGIN_URL", origin.url.as_str()).start().await;
    survives(&worker.url, &origin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_with_two_origins_takes_the_other() {
    for mood in MOODS {
        // None of them opens the breaker before the next.
        let (origin, second, worker) = worker_over_two().await;
        survives_one(mood, &worker.url, &origin, Some(&second)).await;
    }
}

async fn worker_over_two() -> (Origin, Origin, Worker) {
    let (origin, second) = (Origin::start().await, Origin::start().await);
    let worker = worker(None)
        .var("ORIGIN_URL", origin.url.as_str())
        .var("SECOND_ORIGIN_URL", second.url.as_str())
        .start()
        .await;
    (origin, second, worker)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_breaker_opens_and_closes() {
    let (origin, second, worker) = worker_over_two().await;
    let mut number = 100;
    let mut read = async || {
        number += 1;
        let fresh = Fresh::new(number);
        fresh.put(&origin);
        fresh.put(&second);
        let key = ObjectKey::Blob(Digest::of(&fresh.small));
        let answer = Ask::get(&key.path()).answer(&worker.url).await;
        assert!(is_right(&answer, Right::Bytes(&fresh.small)), "{answer:?}");
    };
    read().await;
    assert_eq!((origin.asked(), second.asked()), (1, 0));
    origin.is_now(Mood::Status(500));
    for _ in 0..modunest_edge::plan::FAILURES_TO_OPEN {
        read().await;
    }
    let (asked, opened) = (origin.asked(), Instant::now());
    for _ in 0..5 {
        read().await;
    }
    assert_eq!(origin.asked(), asked, "the breaker did not open");
    origin.is_now(Mood::Healthy);
    tokio::time::sleep((COOL_DOWN + Duration::from_millis(300)).saturating_sub(opened.elapsed()))
        .await;
    let (before, other) = (origin.asked(), second.asked());
    for _ in 0..5 {
        read().await;
    }
    assert_eq!((origin.asked(), second.asked()), (before + 5, other), "the breaker did not close");
}
