//! The table of the template against the one that the code makes on one machine.

use std::collections::BTreeSet;

use modunest_functions::{Config, Functions};
use modunest_local::LocalServices;
use modunest_runtime::aws;
use serde_json::{Value, json};

use super::template::{list, load};

const TABLE: &str = "modunest";
const ORIGIN: &str = "registry.example.org";

/// A definition, as far as both say it.
fn comparable(table: &Value) -> Value {
    let sorted = |value: &Value| -> BTreeSet<String> {
        list(value).into_iter().map(Value::to_string).collect()
    };
    let indexes: BTreeSet<String> = list(&table["GlobalSecondaryIndexes"])
        .into_iter()
        .map(|index| {
            json!([index["IndexName"], index["KeySchema"], index["Projection"]]).to_string()
        })
        .collect();
    json!({
        "attributes": sorted(&table["AttributeDefinitions"]),
        "keys": table["KeySchema"],
        "indexes": indexes,
        "billing": table["BillingMode"],
        "ttl": table["TimeToLiveSpecification"],
    })
}

/// What DynamoDB says about the table that the code has made.
async fn made() -> Value {
    let any = "127.0.0.1:0".parse().unwrap();
    let embedded = modunest_local::Config {
        data_dir: None,
        s3_listen: any,
        dynamodb_listen: any,
        access_key: "AKIATESTS".to_owned(),
        secret_key: "the tests' own secret".to_owned(),
        region: "eu-central-1".to_owned(),
        buckets: Vec::new(),
    };
    let mut settings = aws::Settings {
        region: embedded.region.clone(),
        access_key_id: embedded.access_key.clone(),
        secret_access_key: embedded.secret_key.clone(),
        session_token: None,
        s3_endpoint: None,
        dynamodb_endpoint: None,
        kms_endpoint: None,
    };
    let services = LocalServices::start(embedded, Vec::new()).await.unwrap();
    settings.dynamodb_endpoint = Some(services.dynamodb_endpoint());
    let functions = Functions::new(Config {
        table: TABLE.to_owned(),
        staging_bucket: "staging".to_owned(),
        public_bucket: "public".to_owned(),
        origin: ORIGIN.to_owned(),
        keys: modunest_tests::deployed::registry_keys(ORIGIN),
        trust: None,
        online_key: None,
        aws: settings.clone(),
        public_s3_endpoint: None,
        sole_writer: true,
        clock: Config::system_clock(),
    })
    .await
    .unwrap();
    functions.create_table().await.unwrap();
    let client = aws::dynamodb(&settings);
    let table = client.describe_table().table_name(TABLE).send().await.unwrap().table.unwrap();
    let ttl = client.describe_time_to_live().table_name(TABLE).send().await.unwrap();
    let ttl = ttl.time_to_live_description.unwrap();
    let keys = |schema: &[aws_sdk_dynamodb::types::KeySchemaElement]| -> Value {
        schema
            .iter()
            .map(|key| json!({"AttributeName": key.attribute_name(), "KeyType": key.key_type().as_str()}))
            .collect()
    };
    let attributes: Vec<Value> = table
        .attribute_definitions()
        .iter()
        .map(|a| json!({"AttributeName": a.attribute_name(), "AttributeType": a.attribute_type().as_str()}))
        .collect();
    let indexes: Vec<Value> = table
        .global_secondary_indexes()
        .iter()
        .map(|index| {
            let projection = index.projection().unwrap().projection_type().unwrap().as_str();
            json!({
                "IndexName": index.index_name(),
                "KeySchema": keys(index.key_schema()),
                "Projection": {"ProjectionType": projection},
            })
        })
        .collect();
    let billing = table.billing_mode_summary().unwrap().billing_mode().unwrap().as_str();
    json!({
        "AttributeDefinitions": attributes,
        "KeySchema": keys(table.key_schema()),
        "GlobalSecondaryIndexes": indexes,
        "BillingMode": billing,
        "TimeToLiveSpecification": {
            "AttributeName": ttl.attribute_name(),
            "Enabled": ttl.time_to_live_status().unwrap().as_str() == "ENABLED",
        },
    })
}

#[tokio::test]
async fn the_template_makes_the_table_that_the_code_makes() {
    let template = load();
    let ours = &template["Resources"]["Table"]["Properties"];
    assert_eq!(comparable(ours), comparable(&made().await));
}

#[test]
fn the_table_survives_mistakes() {
    let template = load();
    let table = &template["Resources"]["Table"]["Properties"];
    assert_eq!(table["DeletionProtectionEnabled"], true);
    assert_eq!(
        table["PointInTimeRecoverySpecification"],
        json!({"PointInTimeRecoveryEnabled": true})
    );
    assert_eq!(table["SSESpecification"]["SSEType"], "KMS");
    assert!(table.get("StreamSpecification").is_some());
}
