//! The functions of the template against the programs that they run.

use std::cell::RefCell;
use std::collections::BTreeSet;

use modunest_core::publish::ATTEMPTS_MAX;
use modunest_functions::lambda::Settings;
use serde_json::{Value, json};

use super::template::{load, read, resources};

/// SQS wants a message hidden for six times as long as the function may take ("Using Lambda
/// with Amazon SQS").
const VISIBILITY_FACTOR: u64 = 6;
/// Seconds after which an HTTP API answers by itself ("Quotas for HTTP APIs").
const HTTP_API_TIMEOUT_SECS: u64 = 30;
/// Seconds between two runs of a schedule.
const SCHEDULE_SECS: u64 = 60;
/// Bytes that the head of a name may have with S3, account and region behind it.
const BUCKET_NAME_MAX: usize = 63;

fn functions(template: &Value) -> Vec<(&str, &Value)> {
    resources(template, "AWS::Serverless::Function")
}

fn timeout(template: &Value, function: &str) -> u64 {
    template["Resources"][function]["Properties"]["Timeout"].as_u64().unwrap()
}

#[test]
fn each_program_is_deployed_once() {
    let manifest: toml::Table = read("functions/Cargo.toml").parse().unwrap();
    let programs: BTreeSet<&str> = manifest["bin"]
        .as_array()
        .unwrap()
        .iter()
        .map(|bin| bin["name"].as_str().unwrap())
        .collect();
    let template = load();
    let deployed: Vec<&str> = functions(&template)
        .iter()
        .map(|(name, function)| {
            let metadata = &function["Metadata"];
            assert_eq!(metadata["BuildMethod"], "rust-cargolambda", "{name}");
            metadata["BuildProperties"]["Binary"].as_str().unwrap()
        })
        .collect();
    assert_eq!(deployed.len(), programs.len());
    assert_eq!(BTreeSet::from_iter(deployed), programs);
    let globals = &template["Globals"]["Function"];
    assert_eq!(
        (&globals["Handler"], &globals["CodeUri"]),
        (&json!("bootstrap"), &json!("functions/"))
    );
}

#[test]
fn variables_are_those_that_the_programs_read() {
    let asked = RefCell::new(BTreeSet::new());
    let error = Settings::read(&|name| {
        asked.borrow_mut().insert(name.to_owned());
        None
    })
    .unwrap_err()
    .to_string();
    let of_lambda = |name: &&str| name.starts_with("AWS_");
    let required: BTreeSet<&str> = error
        .split("; ")
        .map(|part| part.strip_suffix(" is not set").unwrap())
        .filter(|name| !of_lambda(name))
        .collect();
    let template = load();
    let set = &template["Globals"]["Function"]["Environment"]["Variables"];
    let set: BTreeSet<&str> = set.as_object().unwrap().keys().map(String::as_str).collect();
    // Those that a deployment may leave out say where AWS is when it is not AWS; and a registry
    // may have no trust root yet, and keys in a bucket instead of KMS.
    let optional =
        BTreeSet::from(["MODUNEST_TRUST_CONFIG", "MODUNEST_LOG_KEY", "MODUNEST_HEAD_KEY"]);
    assert_eq!(set, &required | &optional);
    assert!(set.iter().all(|name| asked.borrow().contains(*name)));
    for (name, function) in functions(&template) {
        assert_eq!(
            function["Properties"].get("Environment"),
            None,
            "{name} has variables of its own"
        );
    }
}

#[test]
fn each_function_has_its_role_its_policy_and_its_log() {
    let template = load();
    for (name, function) in functions(&template) {
        let short = name.strip_suffix("Function").unwrap();
        let properties = &function["Properties"];
        assert_eq!(properties["Role"], json!({"Fn::GetAtt": [format!("{short}Role"), "Arn"]}));
        assert_eq!(function["DependsOn"], format!("{short}Policy"));
        assert_eq!(properties["LoggingConfig"]["LogGroup"], json!({"Ref": format!("{short}Logs")}));
    }
    for (name, group) in resources(&template, "AWS::Logs::LogGroup") {
        assert_eq!(
            group["Properties"]["RetentionInDays"],
            json!({"Ref": "LogRetentionDays"}),
            "{name}"
        );
    }
}

#[test]
fn times_fit_into_each_other() {
    let template = load();
    let queue = &template["Resources"]["StorageEvents"]["Properties"];
    let visible_again = queue["VisibilityTimeout"].as_u64().unwrap();
    assert!(visible_again >= VISIBILITY_FACTOR * timeout(&template, "FinalizeFunction"));
    assert!(queue["RedrivePolicy"]["maxReceiveCount"].as_u64().unwrap() >= u64::from(ATTEMPTS_MAX));
    assert!(timeout(&template, "ApiFunction") < HTTP_API_TIMEOUT_SECS);
    assert!(timeout(&template, "SequenceFunction") < SCHEDULE_SECS);
    for (name, schedule) in resources(&template, "AWS::Scheduler::Schedule") {
        let properties = &schedule["Properties"];
        assert_eq!(properties["ScheduleExpression"], "rate(1 minute)", "{name}");
        assert!(properties["Target"].get("DeadLetterConfig").is_some(), "{name}");
    }
    let events =
        &template["Resources"]["FinalizeFunction"]["Properties"]["Events"]["StorageEvents"];
    assert_eq!(events["Properties"]["FunctionResponseTypes"], json!(["ReportBatchItemFailures"]));
}

#[test]
fn what_holds_data_stays_when_the_stack_goes() {
    let template = load();
    for kind in ["AWS::S3::Bucket", "AWS::DynamoDB::Table", "AWS::KMS::Key"] {
        for (name, resource) in resources(&template, kind) {
            for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
                assert_eq!(resource[policy], "Retain", "{name}: {policy}");
            }
        }
    }
    for (name, key) in resources(&template, "AWS::KMS::Key") {
        assert_eq!(key["Properties"]["EnableKeyRotation"], true, "{name}");
    }
}

#[test]
fn buckets_are_private_and_encrypted_and_their_names_fit() {
    let template = load();
    for (name, bucket) in resources(&template, "AWS::S3::Bucket") {
        let properties = &bucket["Properties"];
        let block = properties["PublicAccessBlockConfiguration"].as_object().unwrap();
        assert!(block.len() == 4 && block.values().all(|value| value == true), "{name}");
        assert!(properties.get("BucketEncryption").is_some(), "{name}");
        let pattern = properties["BucketName"]["Fn::Sub"].as_str().unwrap();
        let longest = pattern
            .replace("${Stage}", &"s".repeat(12))
            .replace("${AWS::AccountId}", &"1".repeat(12))
            .replace("${AWS::Region}", "ap-southeast-1");
        assert!(longest.len() <= BUCKET_NAME_MAX, "{name}: {longest}");
    }
}

#[test]
fn the_queue_knows_the_bucket_by_the_name_it_has() {
    let template = load();
    let name = template["Resources"]["StagingBucket"]["Properties"]["BucketName"]["Fn::Sub"]
        .as_str()
        .unwrap();
    let statement = &template["Resources"]["StorageEventsPolicy"]["Properties"]["PolicyDocument"]["Statement"]
        [0];
    let source = statement["Condition"]["ArnEquals"]["aws:SourceArn"]["Fn::Sub"].as_str().unwrap();
    assert_eq!(source, format!("arn:${{AWS::Partition}}:s3:::{name}"));
    assert_eq!(template["Resources"]["StagingBucket"]["DependsOn"], "StorageEventsPolicy");
}
