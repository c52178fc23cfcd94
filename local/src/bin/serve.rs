//! The embedded services alone, in a process of their own: to try the AWS SDK
//! against them, and for the tests that end the process with `kill -9`.
//!
//! `modunest-local-serve DATA_FOLDER BUCKET EVENTS_FILE` prints one line of JSON
//! with both endpoints once it serves, and goes on until Ctrl-C. Every event's key is appended to
//! the events file, encoded as in the event, before the event is acknowledged.
//! `MODUNEST_LOCAL_ACCESS_KEY` and `MODUNEST_LOCAL_SECRET_KEY` give the key;
//! `MODUNEST_LOCAL_HANDLER_PAUSE_MS` makes each event take that long.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use modunest_local::{Config, LocalServices, Subscription};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(data_dir), Some(bucket), Some(events), None) =
        (arguments.next(), arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: modunest-local-serve DATA_FOLDER BUCKET EVENTS_FILE".into());
    };
    let variable = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = Config {
        data_dir: Some(PathBuf::from(data_dir)),
        s3_listen: any_port,
        dynamodb_listen: any_port,
        access_key: variable("MODUNEST_LOCAL_ACCESS_KEY")?,
        secret_key: variable("MODUNEST_LOCAL_SECRET_KEY")?,
        region: "local".to_owned(),
        buckets: vec![bucket.clone()],
    };
    let pause = match std::env::var("MODUNEST_LOCAL_HANDLER_PAUSE_MS") {
        Ok(pause_ms) => Duration::from_millis(pause_ms.parse()?),
        Err(_) => Duration::ZERO,
    };
    let events = Arc::new(OpenOptions::new().create(true).append(true).open(events)?);
    let subscription = Subscription::new(bucket, move |event: Value| {
        let events = events.clone();
        async move {
            tokio::time::sleep(pause).await;
            let key = event.pointer("/Records/0/s3/object/key").and_then(Value::as_str);
            let key = key.ok_or_else(|| std::io::Error::other("an event without a key"))?;
            // One write of a line: appends of this size are not mixed with others.
            (&*events).write_all(format!("{key}\n").as_bytes())
        }
    });
    let services = LocalServices::start(config, vec![subscription]).await?;
    let ready = json!({
        "s3": services.s3_endpoint(),
        "dynamodb": services.dynamodb_endpoint(),
        "undelivered_events": services.start_report().undelivered_events,
    });
    // Before it says that it is ready, so that no signal ends it without order.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{ready}")?;
    stdout.flush()?;
    interrupt.recv().await;
    services.shutdown().await?;
    Ok(())
}
