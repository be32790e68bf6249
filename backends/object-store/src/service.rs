//! The store that a URI is of.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, ObjectStoreScheme, RetryConfig};
use plyfold_core::{Error, OptionFault, Result};
use serde_json::Value;
use url::Url;

use crate::background;
use crate::bucket::Bucket;
use crate::config::Config;
use crate::connector::Connector;
use crate::files::Files;

/// The objects of `memory:` of this process.
static MEMORY: LazyLock<Arc<InMemory>> = LazyLock::new(Arc::default);

/// The longest wait for the first byte of an answer, and for each next one: a request is sent again then, where that is safe.
/// What takes long as a whole and goes on is not interrupted: a large blob over a slow network.
const STALL: &str = "20 seconds";
/// What stands for no limit of a whole request.
const UNLIMITED: &str = "1 day";

/// The longest time in which a request is sent again: with [`STALL`], an operation ends within a minute when nothing answers.
const RETRIES: Duration = Duration::from_secs(30);

/// How a request that fails is sent again: no longer than a right lasts, which is lost then.
fn retry(expiry: Duration) -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(5),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: 24, retry_timeout: expiry.min(RETRIES) }
}

/// A store by the builder of its service: the environment, what is set here, and the options, each before the next.
macro_rules! connected {
    ($builder:ty, $key:ty, $uri:ident, $config:ident) => {{
        let connector = Connector(background::handle()?);
        let mut builder = <$builder>::from_env().with_url($uri).with_http_connector(connector);
        builder = builder.with_retry(retry($config.expiry()));
        for (key, value) in [(ClientConfigKey::ReadTimeout, STALL), (ClientConfigKey::Timeout, UNLIMITED)] {
            builder = builder.with_config(<$key>::Client(key), value);
        }
        for (key, value) in known::<$key>(&$config.service)? {
            builder = builder.with_config(key, value);
        }
        // No request is made: what is wrong is an option, or a variable of the environment.
        let wrong = |e| Error::config("opening a bucket").with_endpoint($uri).with_source(e);
        Arc::new(builder.build().map_err(wrong)?)
    }};
}

/// The bucket of a URI. No request is made.
pub(crate) fn open(uri: &str, config: &Config) -> Result<Bucket> {
    let invalid = |why: &str| {
        let error = Error::config(format!("invalid URI of a cache in object storage: {why}"));
        error.with_hint(
            "write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER",
        )
    };
    let url: Url = uri.parse().map_err(|e| invalid("it is no URL").with_source(e))?;
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(invalid("it has credentials, a query or a fragment"));
    }
    let (scheme, prefix) =
        ObjectStoreScheme::parse(&url).map_err(|e| invalid("it is of no known service").with_source(e))?;
    let store: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::AmazonS3 => {
            connected!(AmazonS3Builder, AmazonS3ConfigKey, uri, config)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            connected!(GoogleCloudStorageBuilder, GoogleConfigKey, uri, config)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            connected!(MicrosoftAzureBuilder, AzureConfigKey, uri, config)
        }
        ObjectStoreScheme::Local => {
            none(&config.service)?;
            if !uri.starts_with("file:///") {
                // What is relative to no folder is not taken as an absolute path.
                return Err(invalid("it names no folder by its whole path"));
            }
            let folder = url.to_file_path().map_err(|()| invalid("it names no folder"))?;
            let uri = format!("file://{}", folder.display());
            return Ok(Bucket::new(Arc::new(Files::new(&folder)), &Path::default(), &uri));
        }
        ObjectStoreScheme::Memory => {
            none(&config.service)?;
            MEMORY.clone()
        }
        _ => return Err(invalid("it is of no service that keeps objects")),
    };
    Ok(Bucket::new(store, &prefix, uri.trim_end_matches('/')))
}

/// Options by their names, as text. `access-key-id` is the same as `access_key_id`.
fn known<K: FromStr>(options: &BTreeMap<String, Value>) -> Result<Vec<(K, String)>> {
    let parsed = options.iter().map(|(name, value)| {
        let key = K::from_str(&name.replace('-', "_")).map_err(|_| {
            unknown(name, "there are `lease-seconds`, `read-only`, `scratch` and those of the service")
        })?;
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => {
                let why = "it takes one text".to_owned();
                return Err(OptionFault::Value(name.clone(), why).into());
            }
        };
        Ok((key, value))
    });
    parsed.collect()
}

fn none(options: &BTreeMap<String, Value>) -> Result<()> {
    let known = "there are `lease-seconds`, `read-only` and `scratch`";
    options.keys().next().map_or(Ok(()), |name| Err(unknown(name, known)))
}

fn unknown(name: &str, why: &str) -> Error {
    OptionFault::Unknown(name.to_owned(), why.to_owned()).into()
}
