//! The store that a URI is of.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::SpawnedReqwestConnector;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreScheme};
use plyfold_core::{Error, OptionFault, Result};
use serde_json::Value;
use url::Url;

use crate::background;
use crate::bucket::Bucket;
use crate::error::failed;
use crate::files::Files;

/// The objects of `memory:` of this process.
static MEMORY: LazyLock<Arc<InMemory>> = LazyLock::new(Arc::default);

/// The bucket of a URI. No request is made.
pub(crate) fn open(uri: &str, options: &BTreeMap<String, Value>) -> Result<Bucket> {
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
    let connector = || Ok::<_, Error>(SpawnedReqwestConnector::new(background::handle()?));
    let at = |e| failed(e, "opening a bucket", uri);
    let store: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::AmazonS3 => {
            let mut builder = AmazonS3Builder::from_env().with_url(uri).with_http_connector(connector()?);
            for (key, value) in known::<AmazonS3ConfigKey>(options)? {
                builder = builder.with_config(key, value);
            }
            Arc::new(builder.build().map_err(at)?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let mut builder =
                GoogleCloudStorageBuilder::from_env().with_url(uri).with_http_connector(connector()?);
            for (key, value) in known::<GoogleConfigKey>(options)? {
                builder = builder.with_config(key, value);
            }
            Arc::new(builder.build().map_err(at)?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let mut builder =
                MicrosoftAzureBuilder::from_env().with_url(uri).with_http_connector(connector()?);
            for (key, value) in known::<AzureConfigKey>(options)? {
                builder = builder.with_config(key, value);
            }
            Arc::new(builder.build().map_err(at)?)
        }
        ObjectStoreScheme::Local => {
            none(options)?;
            if !uri.starts_with("file:///") {
                // What is relative to no folder is not taken as an absolute path.
                return Err(invalid("it names no folder by its whole path"));
            }
            let folder = url.to_file_path().map_err(|()| invalid("it names no folder"))?;
            let uri = format!("file://{}", folder.display());
            return Ok(Bucket::new(Arc::new(Files::new(&folder)), &Path::default(), &uri));
        }
        ObjectStoreScheme::Memory => {
            none(options)?;
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
