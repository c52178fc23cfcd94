//! Making the table where no template does it: on one machine, and in tests.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType, TableStatus, TimeToLiveSpecification,
};

use super::{DUE_INDEX, Store, failed};
use crate::error::Error;
use crate::faults;

/// How often a new table is asked whether it is ready, and how long in between: AWS takes
/// some seconds, the embedded service none.
const READY_TRIES: u32 = 60;
const READY_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

impl Store {
    /// Makes the table; one that exists is left as it is.
    pub(crate) async fn create_table(&self) -> Result<(), Error> {
        if self.table_ready().await?.is_some() {
            return self.wait_until_ready().await;
        }
        let attribute = |name: &str, kind: ScalarAttributeType| {
            AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build()
        };
        let key = |name: &str, kind: KeyType| {
            KeySchemaElement::builder().attribute_name(name).key_type(kind).build()
        };
        let incomplete = |_| Error::Broken("the table's definition is incomplete");
        let due = GlobalSecondaryIndex::builder()
            .index_name(DUE_INDEX)
            .key_schema(key("due_kind", KeyType::Hash).map_err(incomplete)?)
            .key_schema(key("due_at", KeyType::Range).map_err(incomplete)?)
            .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
            .build()
            .map_err(incomplete)?;
        let request = self
            .client
            .create_table()
            .table_name(&self.table)
            .billing_mode(BillingMode::PayPerRequest)
            .attribute_definitions(attribute("pk", ScalarAttributeType::S).map_err(incomplete)?)
            .attribute_definitions(attribute("sk", ScalarAttributeType::S).map_err(incomplete)?)
            .attribute_definitions(
                attribute("due_kind", ScalarAttributeType::S).map_err(incomplete)?,
            )
            .attribute_definitions(attribute("due_at", ScalarAttributeType::N).map_err(incomplete)?)
            .key_schema(key("pk", KeyType::Hash).map_err(incomplete)?)
            .key_schema(key("sk", KeyType::Range).map_err(incomplete)?)
            .global_secondary_indexes(due);
        let sent = faults::write(Box::pin(request.send())).await;
        match sent {
            Ok(_) => {}
            // Somebody else makes it at the same moment.
            Err(error)
                if error.as_service_error().is_some_and(|e| e.is_resource_in_use_exception()) => {}
            Err(error) => return Err(failed("CreateTable", &error)),
        }
        self.wait_until_ready().await?;
        let ttl = TimeToLiveSpecification::builder()
            .enabled(true)
            .attribute_name("ttl")
            .build()
            .map_err(incomplete)?;
        let request = self
            .client
            .update_time_to_live()
            .table_name(&self.table)
            .time_to_live_specification(ttl);
        faults::write(Box::pin(request.send()))
            .await
            .map(|_| ())
            .map_err(|error| failed("UpdateTimeToLive", &error))
    }

    /// Whether the table is ready; `None` when there is none.
    pub(crate) async fn table_ready(&self) -> Result<Option<bool>, Error> {
        match Box::pin(self.client.describe_table().table_name(&self.table).send()).await {
            Ok(answer) => {
                let status = answer.table.and_then(|table| table.table_status);
                Ok(Some(status == Some(TableStatus::Active)))
            }
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_resource_not_found_exception()) =>
            {
                Ok(None)
            }
            Err(error) => Err(failed("DescribeTable", &error)),
        }
    }

    async fn wait_until_ready(&self) -> Result<(), Error> {
        for _ in 0..READY_TRIES {
            if self.table_ready().await? == Some(true) {
                return Ok(());
            }
            tokio::time::sleep(READY_PAUSE).await;
        }
        Err(Error::Unavailable {
            service: super::DYNAMODB,
            operation: "CreateTable",
            detail: format!("table {} did not become active", self.table),
        })
    }
}
