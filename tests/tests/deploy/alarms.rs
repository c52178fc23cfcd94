//! Everything that can fail on its own has an alarm, and every alarm has a way out.

use serde_json::{Value, json};

use super::template::{load, read, render, resources};

/// Hours of the objective's window: thirty days.
const WINDOW_HOURS: f64 = 720.0;
/// Share of requests that may fail within it: 99.9 % shall not.
const BUDGET: f64 = 0.001;

fn watched(alarms: &[(&str, &Value)], metric: &str, name: &str, value: &Value) -> bool {
    alarms.iter().any(|(_, alarm)| {
        let properties = &alarm["Properties"];
        properties["MetricName"] == metric
            && properties["Dimensions"] == json!([{"Name": name, "Value": value}])
            && properties["AlarmActions"] == json!([{"Ref": "Alarms"}])
    })
}

#[test]
fn every_function_and_every_last_stop_is_watched() {
    let template = load();
    let alarms = resources(&template, "AWS::CloudWatch::Alarm");
    for (function, _) in resources(&template, "AWS::Serverless::Function") {
        for metric in ["Errors", "Throttles"] {
            assert!(
                watched(&alarms, metric, "FunctionName", &json!({"Ref": function})),
                "{function}: {metric}"
            );
        }
    }
    for (queue, _) in resources(&template, "AWS::SQS::Queue") {
        let name = json!({"Fn::GetAtt": [queue, "QueueName"]});
        let metric = if queue.ends_with("Dead") {
            "ApproximateNumberOfMessagesVisible"
        } else {
            "ApproximateAgeOfOldestMessage"
        };
        assert!(watched(&alarms, metric, "QueueName", &name), "{queue}");
    }
}

#[test]
fn every_alarm_says_what_to_do() {
    let template = load();
    let page = read("docs/deploy.md");
    for kind in ["AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm"] {
        for (id, alarm) in resources(&template, kind) {
            let properties = &alarm["Properties"];
            let name = render(&properties["AlarmName"]);
            let name = name.strip_prefix("modunest-${Stage}-").unwrap();
            // Parts of a composite alarm call nobody by themselves.
            let calls = properties.get("AlarmActions").is_some();
            let is_part = resources(&template, "AWS::CloudWatch::CompositeAlarm").iter().any(
                |(_, composite)| {
                    render(&composite["Properties"]["AlarmRule"]).contains(&format!("${{{id}}}"))
                },
            );
            assert!(calls != is_part, "{id} calls nobody, or twice");
            assert!(
                is_part || page.contains(&format!("`{name}`")),
                "docs/deploy.md does not know {name}"
            );
        }
    }
}

#[test]
fn burn_rates_are_what_the_objective_says() {
    let template = load();
    for (alarm, spent, hours) in [("FastBurn", 0.02, 1.0), ("SlowBurn", 0.05, 6.0)] {
        let threshold = BUDGET * spent * WINDOW_HOURS / hours;
        for (part, window_secs) in [("Long", hours * 3600.0), ("Short", hours * 300.0)] {
            let properties = &template["Resources"][format!("{alarm}{part}")]["Properties"];
            let found = properties["Threshold"].as_f64().unwrap();
            assert!((found - threshold).abs() < 1e-9, "{alarm}{part}: {found}, not {threshold}");
            for metric in &properties["Metrics"].as_array().unwrap()[1..] {
                assert_eq!(metric["MetricStat"]["Period"].as_f64().unwrap(), window_secs);
            }
        }
    }
}
