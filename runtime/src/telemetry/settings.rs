//! What is recorded and where it goes: from a configuration, and from the variables that every
//! OpenTelemetry program reads
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).

use std::time::Duration;

use modunest_core::trace::TraceContext;

/// Path below a collector's address where it takes spans.
const TRACES_PATH: &str = "/v1/traces";

/// What is recorded and where it goes. What is not here (headers, attributes of the resource)
/// the exporter reads from its own variables.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// URL that spans are posted to.
    pub endpoint: String,
    /// Name of the program, unless the environment has another.
    pub service: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Which traces are recorded.
    pub sampler: Sampler,
    /// Spans that wait at most; more are dropped.
    pub queue: usize,
    /// Spans that are sent at once at most.
    pub batch: usize,
    /// How long a span waits for others at most.
    pub delay: Duration,
    /// How long a collector may take to answer.
    pub timeout: Duration,
}

/// Which traces are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// Of 2^64 traces, so many.
    of_2_64: u64,
    /// Whether who started a trace has decided for all.
    parent_based: bool,
}

/// A variable or a setting is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} is \"{value}\", which is not {wanted}")]
pub struct SettingsError {
    /// The variable, or the setting's key.
    pub variable: String,
    /// What it says.
    pub value: String,
    /// What it may say.
    pub wanted: &'static str,
}

impl Sampler {
    /// All, but those that somebody else has started and does not record.
    pub const ALL: Sampler = Sampler { of_2_64: u64::MAX, parent_based: true };

    /// Whether a trace is recorded. All processes decide the same way.
    pub(super) fn samples(self, context: TraceContext, remote: bool) -> bool {
        if remote && self.parent_based {
            return context.is_sampled();
        }
        let [.., a, b, c, d, e, f, g, h] = context.trace_bytes();
        self.of_2_64 == u64::MAX || u64::from_be_bytes([a, b, c, d, e, f, g, h]) < self.of_2_64
    }
}

impl Settings {
    /// What the environment asks for, with `endpoint` of a configuration before the
    /// environment's; `None` where nobody is to collect anything.
    ///
    /// # Errors
    /// Which variable says what it may not.
    pub fn read(
        endpoint: Option<&str>,
        service: &'static str,
        version: &'static str,
    ) -> Result<Option<Settings>, SettingsError> {
        Self::from_variables(endpoint, service, version, &|name| {
            std::env::var(name)
                .ok()
                .map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty())
        })
    }

    fn from_variables(
        endpoint: Option<&str>,
        service: &'static str,
        version: &'static str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Settings>, SettingsError> {
        let is = |name: &str, value: &str| {
            variable(name).is_some_and(|text| text.eq_ignore_ascii_case(value))
        };
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        let below = |base: &str| format!("{}{TRACES_PATH}", base.trim_end_matches('/'));
        let configured = endpoint.map(|base| ("telemetry.otlp", below(base)));
        // The variable for spans alone is taken as it is, the one for everything is a base.
        const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let endpoint = configured
            .or_else(|| Some((TRACES, variable(TRACES)?)))
            .or_else(|| Some((ALL, below(&variable(ALL)?))));
        let Some((source, endpoint)) = endpoint else { return Ok(None) };
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            let variable = source.to_owned();
            let wanted = "an http or https URL";
            return Err(SettingsError { variable, value: endpoint, wanted });
        }
        let number = |name: &str, default: u64| match variable(name) {
            None => Ok(default),
            Some(value) => value.parse().ok().filter(|number| *number > 0).ok_or_else(|| {
                SettingsError { variable: name.to_owned(), value, wanted: "a number above 0" }
            }),
        };
        let timeout_ms = number("OTEL_EXPORTER_OTLP_TIMEOUT", 10_000)?;
        let timeout_ms = number("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", timeout_ms)?;
        let queue = number("OTEL_BSP_MAX_QUEUE_SIZE", 2048)?;
        Ok(Some(Settings {
            endpoint,
            service,
            version,
            sampler: sampler(variable)?,
            queue: queue as usize,
            batch: number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)?.min(queue) as usize,
            delay: Duration::from_millis(number("OTEL_BSP_SCHEDULE_DELAY", 5000)?),
            timeout: Duration::from_millis(timeout_ms),
        }))
    }
}

fn sampler(variable: &dyn Fn(&str) -> Option<String>) -> Result<Sampler, SettingsError> {
    const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
    const RATIO: &str = "OTEL_TRACES_SAMPLER_ARG";
    let Some(text) = variable(SAMPLER) else { return Ok(Sampler::ALL) };
    let (parent_based, kind) = match text.strip_prefix("parentbased_") {
        Some(kind) => (true, kind),
        None => (false, text.as_str()),
    };
    let of_2_64 = match kind {
        "always_on" => u64::MAX,
        "always_off" => 0,
        "traceidratio" => {
            let ratio = variable(RATIO).unwrap_or_else(|| "1".to_owned());
            let share = ratio.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
            let share = share.ok_or_else(|| SettingsError {
                variable: RATIO.to_owned(),
                value: ratio,
                wanted: "a number from 0 to 1",
            })?;
            // A float that is too large becomes the largest number.
            (share * 2_f64.powi(64)) as u64
        }
        _ => {
            let wanted =
                "always_on, always_off or traceidratio, with or without parentbased_ before it";
            return Err(SettingsError { variable: SAMPLER.to_owned(), value: text, wanted });
        }
    };
    Ok(Sampler { of_2_64, parent_based })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(
        endpoint: Option<&str>,
        variables: &[(&str, &str)],
    ) -> Result<Option<Settings>, SettingsError> {
        let variable = |name: &str| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        };
        Settings::from_variables(endpoint, "test", "1", &variable)
    }

    #[test]
    fn nothing_is_collected_unless_somebody_says_where() {
        assert_eq!(read(None, &[]).unwrap(), None);
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces/own");
        let endpoint = |configured, variables: &[(&str, &str)]| {
            read(configured, variables).unwrap().map(|settings| settings.endpoint)
        };
        assert_eq!(endpoint(None, &[all]).unwrap(), "http://collector:4318/v1/traces");
        assert_eq!(endpoint(None, &[all, traces]).unwrap(), "https://traces/own");
        assert_eq!(
            endpoint(Some("http://own:1"), &[all, traces]).unwrap(),
            "http://own:1/v1/traces"
        );
        assert_eq!(endpoint(Some("http://own:1"), &[("OTEL_SDK_DISABLED", "TRUE")]), None);
        assert_eq!(endpoint(None, &[all, ("OTEL_TRACES_EXPORTER", "none")]), None);
    }

    #[test]
    fn what_is_not_valid_is_named() {
        let text = |endpoint, variables: &[(&str, &str)]| {
            read(endpoint, variables).unwrap_err().to_string()
        };
        let to = Some("http://own:1");
        assert_eq!(
            text(Some("own:1"), &[]),
            "telemetry.otlp is \"own:1/v1/traces\", which is not an http or https URL"
        );
        for (variable, value) in [
            ("OTEL_TRACES_SAMPLER", "some"),
            ("OTEL_BSP_SCHEDULE_DELAY", "0"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ] {
            let text = text(to, &[(variable, value)]);
            assert!(text.starts_with(&format!("{variable} is \"{value}\"")), "{text}");
        }
        let ratio = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")];
        assert!(text(to, &ratio).starts_with("OTEL_TRACES_SAMPLER_ARG is \"2\""));
    }

    #[test]
    fn a_sampler_takes_its_share_and_heeds_who_started() {
        let sampler = |name: &str, ratio: &str| {
            let variables = [("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", ratio)];
            read(Some("http://own:1"), &variables).unwrap().unwrap().sampler
        };
        let context = |number: u64, sampled| {
            let mut random = [0; 24];
            random[8..16]
                .copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            TraceContext::root(random).with_sampled(sampled)
        };
        let share = |sampler: Sampler| {
            (0..4096).filter(|n| sampler.samples(context(*n, true), false)).count()
        };
        assert_eq!(share(Sampler::ALL), 4096);
        assert_eq!(share(sampler("always_on", "")), 4096);
        assert_eq!(share(sampler("always_off", "")), 0);
        assert!((900..1150).contains(&share(sampler("traceidratio", "0.25"))));
        for (name, sampled, kept) in [
            ("parentbased_always_off", true, true),
            ("parentbased_always_on", false, false),
            ("always_on", false, true),
            ("always_off", true, false),
        ] {
            assert_eq!(sampler(name, "").samples(context(1, sampled), true), kept, "{name}");
        }
    }
}
