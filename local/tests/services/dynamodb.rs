//! What the functions rely on in DynamoDB.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, Put,
    ScalarAttributeType, TransactWriteItem,
};
use futures_util::future::join_all;

use crate::harness::Harness;

pub const TABLE: &str = "registry";

pub async fn create_table(client: &Client) {
    let attribute =
        AttributeDefinition::builder().attribute_name("pk").attribute_type(ScalarAttributeType::S);
    let key = KeySchemaElement::builder().attribute_name("pk").key_type(KeyType::Hash);
    client
        .create_table()
        .table_name(TABLE)
        .attribute_definitions(attribute.build().unwrap())
        .key_schema(key.build().unwrap())
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await
        .unwrap();
}

pub fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub async fn read(client: &Client, key: &str) -> Option<String> {
    let found = client
        .get_item()
        .table_name(TABLE)
        .key("pk", text(key))
        .consistent_read(true)
        .send()
        .await
        .unwrap();
    found.item().map(|item| item["value"].as_s().unwrap().clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_conditional_writers_one_wins() {
    let folder = tempfile::TempDir::new().unwrap();
    let harness = Harness::start(Some(folder.path().to_owned()), Vec::new()).await;
    create_table(&harness.dynamodb).await;
    let puts = (0..50).map(|writer| {
        let client = harness.dynamodb.clone();
        tokio::spawn(async move {
            let put = client
                .put_item()
                .table_name(TABLE)
                .item("pk", text("lock"))
                .item("value", text(writer.to_string()))
                .condition_expression("attribute_not_exists(pk)");
            match put.send().await {
                Ok(_) => Some(writer),
                Err(error) => {
                    assert!(error.into_service_error().is_conditional_check_failed_exception());
                    None
                }
            }
        })
    });
    let winners: Vec<i32> = join_all(puts).await.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(read(&harness.dynamodb, "lock").await, Some(winners[0].to_string()));
    harness.services.shutdown().await.unwrap();
}

#[tokio::test]
async fn transactions_are_all_or_nothing_and_data_outlives_a_restart() {
    let folder = tempfile::TempDir::new().unwrap();
    let harness = Harness::start(Some(folder.path().to_owned()), Vec::new()).await;
    create_table(&harness.dynamodb).await;
    let item = |key: &str| {
        let put = Put::builder()
            .table_name(TABLE)
            .item("pk", text(key))
            .item("value", text("v"))
            .condition_expression("attribute_not_exists(pk)");
        TransactWriteItem::builder().put(put.build().unwrap()).build()
    };
    let write = |first: &str, second: &str| {
        harness
            .dynamodb
            .transact_write_items()
            .transact_items(item(first))
            .transact_items(item(second))
            .send()
    };
    write("a", "b").await.unwrap();
    let refused = write("c", "b").await.unwrap_err().into_service_error();
    assert!(refused.is_transaction_canceled_exception());
    assert_eq!(read(&harness.dynamodb, "c").await, None);
    harness.services.shutdown().await.unwrap();

    let again = Harness::start(Some(folder.path().to_owned()), Vec::new()).await;
    assert_eq!(read(&again.dynamodb, "a").await, Some("v".into()));
    again.services.shutdown().await.unwrap();
}
