//! The agent against a registry that the tests make, and that lies where they want.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod admin;
mod attacks;
mod breakers;
mod canary;
mod capabilities;
mod cgroup;
mod closure;
mod component;
mod embed;
mod events;
mod flow;
mod gateway;
mod guest;
mod homes;
mod hooks;
mod host;
mod hostile;
mod hostile_components;
mod lazy;
mod lies;
mod links;
mod operator;
mod parity;
mod plugins;
mod process;
mod registry;
mod reload;
mod rooted;
mod scale;
mod schedules;
mod screens;
mod secrets;
mod traces;
mod upkeep;
mod waiting;
