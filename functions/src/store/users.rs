//! Users and their tokens.

use modunest_core::authorise::Scope;
use modunest_core::digest::Digest;
use modunest_core::name::UserName;
use modunest_core::time::Timestamp;

use super::item::{Change, Item, Key, Row, json, number, text, time};
use super::{Store, Write};
use crate::error::Error;

/// Hexadecimal digits of a token's hash that name it: 48 bits, few enough to type.
pub(crate) const TOKEN_ID_DIGITS: usize = 12;
/// Tokens that can share an identifier before one of them cannot be revoked by it. With
/// 48 bits two in a million registries of a thousand tokens share one at all.
const TOKENS_OF_ONE_ID: i32 = 10;

/// A user.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) user: UserName,
    pub(crate) registry_admin: bool,
    pub(crate) created_at: Timestamp,
}

/// A token, of which only the hash is known.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) hash: Digest,
    pub(crate) user: UserName,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) label: String,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

fn user_key(user: &UserName) -> Key {
    Key::new(format!("user#{user}"), "user")
}

pub(crate) fn token_id(hash: &Digest) -> String {
    hash.to_hex().chars().take(TOKEN_ID_DIGITS).collect()
}

impl Token {
    fn key(&self) -> Key {
        token_key(&self.hash)
    }

    fn item(&self) -> Result<Item, Error> {
        Ok(self.key().item([
            ("user", Some(text(&self.user))),
            ("scopes", Some(json(&self.scopes)?)),
            ("label", Some(text(&self.label))),
            ("created_at", Some(time(self.created_at))),
            ("expires_at", Some(time(self.expires_at))),
            ("ttl", Some(number(self.expires_at.as_secs()))),
        ]))
    }

    fn read(item: &Item) -> Result<Self, Error> {
        let row = Row::new("token", item);
        let scopes = row.json("scopes")?;
        Ok(Token {
            hash: row.parse("sk")?,
            user: row.parse("user")?,
            scopes: row.required("scopes", scopes)?,
            label: row.text("label")?.to_owned(),
            created_at: row.time("created_at")?,
            expires_at: row.time("expires_at")?,
        })
    }
}

fn token_key(hash: &Digest) -> Key {
    Key::new(format!("token#{}", token_id(hash)), hash.to_hex())
}

fn user_item(user: &User) -> Item {
    user_key(&user.user).item([
        (
            "registry_admin",
            Some(aws_sdk_dynamodb::types::AttributeValue::Bool(user.registry_admin)),
        ),
        ("created_at", Some(time(user.created_at))),
    ])
}

impl Store {
    pub(crate) async fn user(&self, user: &UserName) -> Result<Option<User>, Error> {
        let Some(item) = self.get(&user_key(user)).await? else { return Ok(None) };
        let row = Row::new("user", &item);
        Ok(Some(User {
            user: user.clone(),
            registry_admin: row.flag("registry_admin")?,
            created_at: row.time("created_at")?,
        }))
    }

    pub(crate) async fn create_user(&self, user: &User) -> Result<Write, Error> {
        self.put(user_item(user), &Change::absent()).await
    }

    /// The first user with a token, once in a registry's life.
    pub(crate) async fn bootstrap(&self, user: &User, token: &Token) -> Result<Write, Error> {
        let first =
            Key::new("bootstrap", "bootstrap").item([("created_at", Some(time(user.created_at)))]);
        self.transact(vec![
            self.in_transaction_put(first, &Change::absent())?,
            self.in_transaction_put(user_item(user), &Change::absent())?,
            self.in_transaction_put(token.item()?, &Change::absent())?,
        ])
        .await
    }

    pub(crate) async fn create_token(&self, token: &Token) -> Result<Write, Error> {
        self.put(token.item()?, &Change::absent()).await
    }

    /// Looks a token up by its hash: the database compares, and only hashes are compared.
    pub(crate) async fn token(&self, hash: &Digest) -> Result<Option<Token>, Error> {
        self.get(&token_key(hash)).await?.as_ref().map(Token::read).transpose()
    }

    /// The tokens of an identifier: one, or none.
    pub(crate) async fn tokens_of_id(&self, id: &str) -> Result<Vec<Token>, Error> {
        let items = self.partition(&format!("token#{id}"), TOKENS_OF_ONE_ID).await?;
        items.iter().map(Token::read).collect()
    }

    pub(crate) async fn delete_token(&self, token: &Token) -> Result<(), Error> {
        self.delete(&token.key()).await
    }
}
