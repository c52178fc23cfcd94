//! Inputs that this store does not serve are refused by name, so that nobody
//! believes in an encryption or a lock that is not there.

use s3s::dto::{CopyObjectInput, GetObjectInput, HeadObjectInput, PutObjectInput};
use s3s::{S3Error, S3ErrorCode, S3Result};

/// Fails with the first field that is present.
macro_rules! refuse {
    ($input:expr, $($field:ident),+ $(,)?) => {
        $(if $input.$field.is_some() {
            return Err(not_served(stringify!($field)));
        })+
    };
}

fn not_served(field: &'static str) -> S3Error {
    S3Error::with_message(
        S3ErrorCode::NotImplemented,
        format!("This store does not serve requests with {}", field.replace('_', "-")),
    )
}

pub(super) fn put(input: &PutObjectInput) -> S3Result<()> {
    refuse!(
        input,
        acl,
        bucket_key_enabled,
        expected_bucket_owner,
        grant_full_control,
        grant_read,
        grant_read_acp,
        grant_write_acp,
        object_lock_legal_hold_status,
        object_lock_mode,
        object_lock_retain_until_date,
        sse_customer_algorithm,
        sse_customer_key,
        ssekms_encryption_context,
        ssekms_key_id,
        server_side_encryption,
        storage_class,
        tagging,
        website_redirect_location,
        write_offset_bytes,
    );
    Ok(())
}

pub(super) fn copy(input: &CopyObjectInput) -> S3Result<()> {
    refuse!(
        input,
        acl,
        bucket_key_enabled,
        checksum_algorithm,
        copy_source_sse_customer_algorithm,
        copy_source_sse_customer_key,
        expected_bucket_owner,
        expected_source_bucket_owner,
        grant_full_control,
        grant_read,
        grant_read_acp,
        grant_write_acp,
        object_lock_legal_hold_status,
        object_lock_mode,
        object_lock_retain_until_date,
        sse_customer_algorithm,
        sse_customer_key,
        ssekms_encryption_context,
        ssekms_key_id,
        server_side_encryption,
        storage_class,
        tagging,
        tagging_directive,
        website_redirect_location,
    );
    Ok(())
}

pub(super) fn get(input: &GetObjectInput) -> S3Result<()> {
    refuse!(
        input,
        expected_bucket_owner,
        part_number,
        sse_customer_algorithm,
        sse_customer_key,
        version_id
    );
    Ok(())
}

pub(super) fn head(input: &HeadObjectInput) -> S3Result<()> {
    refuse!(
        input,
        expected_bucket_owner,
        part_number,
        sse_customer_algorithm,
        sse_customer_key,
        version_id
    );
    Ok(())
}
