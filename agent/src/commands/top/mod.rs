//! `top`: every plugin of the running agent, as it works.

mod draw;
mod keys;
mod model;

use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use clap::Args;
use modunest_agent::admin::{PLUGINS_PATH, STATUS_PATH};
use modunest_agent::{Config, EXIT_OK, Error};
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use super::client::AgentClient;
use super::print;
use keys::Next;
use model::{Column, Sample, View};

/// How long a key press may wait for its answer on the screen.
const KEYS_EVERY: Duration = Duration::from_millis(50);

#[derive(Args)]
pub(super) struct TopArguments {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    /// Column to sort by
    #[arg(long, value_enum, default_value_t = Column::Calls)]
    sort: Column,
    /// Only plugins with this in their name, version, state or tier
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Look once (over one interval), print, and end
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.1..=3600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("is not from 0.1 to 3600".to_owned())
    }
}

pub(super) async fn top(
    config: &Config,
    arguments: &TopArguments,
    json: bool,
) -> Result<u8, Error> {
    let client = AgentClient::of(config)?;
    let every = Duration::from_secs_f64(arguments.interval);
    let mut view = View::new(arguments.sort, arguments.filter.clone());
    view.take(look(&client).await?);
    if arguments.once || json {
        loop {
            tokio::time::sleep(every).await;
            view.take(look(&client).await?);
            if json {
                print::json_line(&view.report())?;
            } else {
                print::text(&draw::plain(&view))?;
            }
            if arguments.once {
                return Ok(EXIT_OK);
            }
        }
    }
    let (send, receive) = sync_channel(1);
    // Ends when the screen is closed, which drops the receiver.
    let looking = tokio::spawn(async move {
        loop {
            tokio::time::sleep(every).await;
            if send.send(look(&client).await).is_err() {
                return;
            }
        }
    });
    let shown = tokio::task::spawn_blocking(move || show(view, &receive)).await;
    looking.abort();
    shown.map_err(|error| Error::Output(std::io::Error::other(error)))?.map_err(Error::Output)?;
    Ok(EXIT_OK)
}

async fn look(client: &AgentClient) -> Result<Sample, Error> {
    let plugins = client.get(&format!("{PLUGINS_PATH}?latency=buckets")).await?;
    let status = client.get(STATUS_PATH).await?;
    Ok(Sample { at: Instant::now(), status, plugins })
}

/// Draws and listens to keys until the user has seen enough. Blocks.
fn show(mut view: View, samples: &Receiver<Result<Sample, Error>>) -> std::io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let outcome = (|| {
        loop {
            terminal.draw(|frame| draw::screen(frame, &mut view))?;
            loop {
                if event::poll(KEYS_EVERY)? {
                    match event::read()? {
                        Event::Key(key) if key.kind != KeyEventKind::Release => {
                            match keys::press(&mut view, key) {
                                Next::Quit => return Ok(()),
                                Next::Draw => break,
                                Next::Nothing => {}
                            }
                        }
                        Event::Resize(..) => break,
                        _ => {}
                    }
                }
                match samples.try_recv() {
                    Ok(Ok(sample)) => view.take(sample),
                    Ok(Err(error)) => view.lost(error.to_string()),
                    Err(TryRecvError::Empty) => continue,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
                break;
            }
        }
    })();
    ratatui::restore();
    outcome
}
