//! A street: plugins that attack, and a neighbour in every tier. All neighbours are called all
//! the time, and one by one before each attack, during it and after it. None may fail once.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use modunest_agent::Agent;
use modunest_agent::config::Config;
use modunest_core::statement::TrustLevel;
use reqwest::{Body, Client};
use tokio::task::JoinHandle;

use crate::homes::component;
use crate::plugins::{release, route};
use crate::process::{plugin, runs};
use crate::registry::Registry;

/// All that a neighbour can run in. Where it runs is part of its name: `demo/process`.
pub const TIERS: [&str; 4] = ["in-process", "process", "component", "component-process"];

/// How long any answer may take, on a machine that compiles beside it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two calls of a neighbour.
const PAUSE: Duration = Duration::from_millis(2);

pub struct Street {
    pub registry: Registry,
    pub agent: Agent,
    folder: tempfile::TempDir,
    /// Who is called, by the name of the plugin.
    attacker: &'static str,
    neighbours: Vec<Neighbour>,
    attacks: Mutex<Vec<Attack>>,
    over: Arc<AtomicBool>,
    callers: Vec<JoinHandle<()>>,
}

#[derive(Clone)]
struct Neighbour {
    name: String,
    url: String,
    client: Client,
    heard: Arc<Mutex<Vec<Heard>>>,
}

/// A call of a neighbour.
#[derive(Clone)]
struct Heard {
    began: Instant,
    ended: Instant,
    error: Option<String>,
}

struct Attack {
    tier: String,
    name: String,
    began: Instant,
    ended: Instant,
}

impl Street {
    /// A street with a neighbour in every tier.
    pub async fn start(
        registry: Registry,
        attacker: &'static str,
        change: impl FnOnce(&mut Config),
    ) -> Street {
        Self::beside(&TIERS, registry, attacker, change).await
    }

    /// Publishes a neighbour for each of these tiers, and starts an agent with them and with
    /// `attacker`, which is published already. The agent keeps a secret, at [`Street::secret`].
    pub async fn beside(
        tiers: &[&str],
        registry: Registry,
        attacker: &'static str,
        change: impl FnOnce(&mut Config),
    ) -> Street {
        let names: Vec<String> = tiers.iter().map(|tier| format!("demo/{tier}")).collect();
        for (name, tier) in names.iter().zip(tiers) {
            let page = route(&format!("/{tier}"));
            registry.publish(match *tier {
                "in-process" | "process" => release(name, "1.0.0", &[], &page),
                _ => component(name, &page),
            });
            if *tier == "component" {
                registry.trust(name, TrustLevel::Verified);
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let wanted = names.iter().map(String::as_str).chain([attacker]);
        let wanted: Vec<_> = wanted.map(|name| (name, "^1")).collect();
        let mut config = registry.config(&folder.path().join("state"), &wanted);
        config.host.in_process = vec!["demo/in-process".parse().unwrap()];
        config.host.load_timeout = Duration::from_secs(30);
        let restarts = &mut config.host.process.restarts;
        restarts.first_pause = Duration::from_millis(10);
        restarts.pause_max = Duration::from_millis(10);
        restarts.restarts_max = 100;
        let secret = config.state_dir.join("index/kept");
        std::fs::create_dir_all(secret.parent().unwrap()).unwrap();
        std::fs::write(secret, "a secret").unwrap();
        change(&mut config);
        let agent = Agent::start(config).await.unwrap();
        let mut neighbours = Vec::new();
        for (name, tier) in names.into_iter().zip(tiers) {
            assert_eq!(plugin(&agent, &name).tier, *tier);
            let page = if tier.starts_with("component") { "/now" } else { "" };
            let url = format!("http://{}/{tier}{page}", agent.gateway_addr());
            let client = Client::builder().timeout(PATIENCE).build().unwrap();
            neighbours.push(Neighbour { name, url, client, heard: Arc::default() });
        }
        let over = Arc::new(AtomicBool::new(false));
        let call_on = |neighbour: &Neighbour| {
            let (neighbour, over) = (neighbour.clone(), over.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    neighbour.call().await;
                    tokio::time::sleep(PAUSE).await;
                }
            })
        };
        let callers = neighbours.iter().map(call_on).collect();
        let attacks = Mutex::default();
        Street { registry, agent, folder, attacker, neighbours, attacks, over, callers }
    }

    /// A file of the agent's, which nobody else reads or writes.
    pub fn secret(&self) -> PathBuf {
        self.folder.path().join("state/index/kept")
    }

    /// The attacker's process; none where it has none of its own.
    pub fn pid(&self) -> Option<u32> {
        runs(&self.agent, self.attacker).pid
    }

    /// How often the attacker was started again.
    pub fn restarts(&self) -> u64 {
        plugin(&self.agent, self.attacker).restarts.unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.agent.gateway_addr())
    }

    /// What a request is answered: its status, and its text or what went wrong.
    pub async fn post(&self, path: &str, body: impl Into<Body>) -> (u16, String) {
        let answer = Client::new().post(self.url(path)).body(body).send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        let problem: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        let detail = problem.and_then(|problem| Some(problem["detail"].as_str()?.to_owned()));
        (status, detail.unwrap_or(text))
    }

    /// Runs an attack. Every neighbour answers before it, in the middle of it, and after it.
    pub async fn during<T>(&self, name: &str, attack: impl Future<Output = T>) -> T {
        let tier = plugin(&self.agent, self.attacker).tier;
        self.all_answer(name).await;
        let began = Instant::now();
        let attack = async { (attack.await, Instant::now()) };
        // These calls begin before the attack can end.
        let ((outcome, ended), ()) = tokio::join!(attack, self.all_answer(name));
        self.all_answer(name).await;
        let attack = Attack { tier, name: name.to_owned(), began, ended };
        self.attacks.lock().unwrap().push(attack);
        outcome
    }

    /// One answer of every neighbour, to a call that begins now.
    async fn all_answer(&self, during: &str) {
        let heard = join_all(self.neighbours.iter().map(Neighbour::call)).await;
        for (neighbour, heard) in self.neighbours.iter().zip(heard) {
            assert_eq!(heard.error, None, "{} at {during}", neighbour.name);
        }
    }

    /// Ends it all; the neighbours must not have noticed anything.
    pub async fn end(self) {
        let seen: Vec<_> =
            self.neighbours.iter().map(|one| plugin(&self.agent, &one.name)).collect();
        self.over.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.unwrap();
        }
        for attack in self.attacks.into_inner().unwrap() {
            attack.show(&self.neighbours);
        }
        for (neighbour, seen) in self.neighbours.iter().zip(seen) {
            let errors: Vec<_> = neighbour.heard().filter_map(|heard| heard.error).collect();
            assert_eq!(errors, Vec::<String>::new(), "{}", neighbour.name);
            let crash = seen.runs.and_then(|runs| runs.last_crash);
            assert_eq!((seen.restarts.unwrap_or(0), crash), (0, None), "{}", neighbour.name);
        }
        let secret = self.folder.path().join("state/index/kept");
        assert_eq!(std::fs::read_to_string(secret).unwrap(), "a secret");
        self.agent.shutdown().await;
    }
}

impl Neighbour {
    async fn call(&self) -> Heard {
        let began = Instant::now();
        let error = match self.client.get(&self.url).send().await {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(answer.text().await.unwrap_or_default()),
            Err(error) => Some(error.to_string()),
        };
        let heard = Heard { began, ended: Instant::now(), error };
        self.heard.lock().unwrap().push(heard.clone());
        heard
    }

    fn heard(&self) -> impl Iterator<Item = Heard> {
        self.heard.lock().unwrap().clone().into_iter()
    }
}

impl Attack {
    /// A line of the table: what the neighbours' callers saw while it went on.
    #[allow(clippy::print_stdout, reason = "the neighbours' p99 is shown, and not judged")]
    fn show(&self, neighbours: &[Neighbour]) {
        let (mut times, mut errors) = (Vec::new(), 0);
        for neighbour in neighbours {
            let beside = |heard: &Heard| heard.began <= self.ended && heard.ended >= self.began;
            let before = times.len();
            for heard in neighbour.heard().filter(beside) {
                match heard.error {
                    None => times.push(heard.ended - heard.began),
                    Some(_) => errors += 1,
                }
            }
            let Attack { name, .. } = self;
            assert!(times.len() > before, "{} was not called at {name}", neighbour.name);
        }
        times.sort_unstable();
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let (took, p99) = (ms(self.ended - self.began), ms(times[times.len() * 99 / 100]));
        println!(
            "attack | {:<17} | {:<26} | {took:>6.0} ms | {:>5} calls of neighbours | {errors} errors | p99 {p99:>6.1} ms",
            self.tier,
            self.name,
            times.len(),
        );
    }
}
