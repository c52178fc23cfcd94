//! Publishing as the command line tool does it, without its progress bars.

use modunest_core::api::{
    CreateOrg, OrgView, PublishRequest, PublishResponse, RegisterKey, StatementResponse,
};
use modunest_tlog::SigningKey;
use reqwest::Method;

use super::DATA_BYTES;
use crate::api::Api;
use crate::edge::server::bytes;
use crate::error::Error;
use crate::host::plugins::{self, Packed};

/// Who publishes.
pub struct Publisher {
    api: Api,
    key: SigningKey,
    library: Vec<u8>,
}

impl Publisher {
    /// Founds the organisation and registers a key.
    pub async fn new(api: Api) -> Result<Publisher, Error> {
        let folder = plugins::folder()?;
        let path = plugins::library(&folder, 0);
        let library = std::fs::read(&path).map_err(Error::io(&path))?;
        let org = plugins::org()?;
        let name = org.as_str().parse().map_err(Error::wrong("a key's name"))?;
        let key = SigningKey::from_seed(name, &modunest_runtime::random::bytes());
        let _org: OrgView =
            api.send(Method::POST, "/v1/orgs", &CreateOrg { org: org.clone() }).await?;
        let public = key.verifying_key().to_string();
        let proof = modunest_tlog::sign(&RegisterKey::proof_text(&org, &public), &[&key]);
        let proof = String::from_utf8(proof.map_err(Error::wrong("the key's proof"))?);
        let proof = proof.map_err(Error::wrong("the key's proof"))?;
        let path = format!("/v1/orgs/{org}/keys");
        let request = RegisterKey { key: public, proof };
        let _registered: StatementResponse = api.send(Method::POST, &path, &request).await?;
        Ok(Publisher { api, key, library })
    }

    /// A plugin's first release, different from every other's.
    pub fn package(&self, number: usize) -> Result<Packed, Error> {
        let mut data = bytes(DATA_BYTES);
        data.extend_from_slice(&number.to_le_bytes());
        plugins::packed(&plugins::name(number)?, self.library.clone(), data)
    }

    /// Publishes, up to the acknowledged upload.
    pub async fn publish(&self, package: &Packed) -> Result<(), Error> {
        let signed = plugins::release(package, &self.key)?;
        let statement = String::from_utf8(signed.bytes().to_vec());
        let statement = statement.map_err(Error::wrong("a release statement"))?;
        let request = PublishRequest { statement, dry_run: false };
        let answer: PublishResponse = self.api.send(Method::POST, "/v1/releases", &request).await?;
        for upload in &answer.uploads {
            let mut request = self.api.client.put(&upload.url).body(package.bytes.clone());
            for (name, value) in &upload.headers {
                request = request.header(name, value);
            }
            // The address is a secret while it is valid.
            let sent = request.send().await.map_err(|error| error.without_url());
            let status = sent.map_err(Error::request("the upload"))?.status();
            if !status.is_success() {
                return Err(Error::Wrong { what: "the upload", why: format!("status {status}") });
            }
        }
        Ok(())
    }
}
