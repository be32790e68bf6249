//! The list of a daemon's images.

use std::fmt;
use std::io::{BufReader, Read};
use std::marker::PhantomData;

use plyfold_core::{Error, Reference, Result, reference};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};

use super::client::Client;
use super::fault::DaemonFault;

/// Names that all images may have.
const NAMES: usize = 1 << 16;

/// The names of all images, sorted. Of the list, which may be long, nothing else is held.
pub(super) async fn names(client: &Client) -> Result<Vec<Reference>> {
    let mut names = client.streamed("/images/json", read).await?;
    names.sort_by_cached_key(Reference::whole);
    Ok(names)
}

fn read(list: &mut dyn Read) -> Result<Vec<Reference>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Image {
        repo_tags: Option<Tags>,
    }
    let (mut names, mut seen) = (Vec::new(), 0);
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(list));
    let read = each(&mut json, |image: Image| {
        let tags = image.repo_tags.map(|Tags(tags)| tags).unwrap_or_default();
        seen += tags.len();
        // `<none>:<none>` is none.
        names.extend(tags.iter().filter_map(|tag| reference::parse(tag).ok()));
        seen <= NAMES
    });
    if seen > NAMES {
        return Err(Error::limit(format!("the daemon's images have more than {NAMES} names")));
    }
    read.and_then(|()| json.end()).map_err(|e| Error::from(DaemonFault::Garbled).with_source(e))?;
    Ok(names)
}

/// The names of one image, of which no more than one too many is kept.
struct Tags(Vec<String>);

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(list: D) -> Result<Self, D::Error> {
        let mut tags = Vec::new();
        each(list, |tag| {
            if tags.len() <= NAMES {
                tags.push(tag);
            }
            true
        })?;
        Ok(Self(tags))
    }
}

/// Takes the entries of a list one by one, as long as `take` says so.
fn each<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    list: D,
    take: impl FnMut(T) -> bool,
) -> Result<(), D::Error> {
    struct Each<T, F>(F, PhantomData<T>);

    impl<'de, T: Deserialize<'de>, F: FnMut(T) -> bool> Visitor<'de> for Each<T, F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
            while let Some(entry) = list.next_element()? {
                if !(self.0)(entry) {
                    return Err(A::Error::custom("too many entries"));
                }
            }
            Ok(())
        }
    }

    list.deserialize_seq(Each(take, PhantomData))
}
