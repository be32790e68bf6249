//! The right to do some work, across machines.

use plyfold_core::{Lease, Result, digest};

use crate::bucket::{Bucket, Expected, Swapped, gone, is_gone, token};
use crate::hold::Hold;
use crate::shared::Shared;
use crate::watch::{Turn, Watch};

/// The largest object of a question to the service: a token, and a word.
const LARGEST: u64 = 64;

/// Waits until no other task or machine has the right to do this work. It is an object that its holder renews; when it
/// stays the same until it expires, its holder is gone, and one of those who wait takes it.
pub(crate) async fn single_flight(shared: &Shared, work: &str) -> Result<Lease> {
    shared.check_writable()?;
    let bucket = &shared.bucket;
    let path = bucket.path(&format!("flights/{}", digest::sha256(work.as_bytes()).digest()))?;
    let turn = shared.queues.turn(path.as_ref()).await;
    let mut watch = Watch::new(shared.expiry);
    loop {
        let expected = match bucket.look(&path).await? {
            None => Expected::Absent,
            Some((version, size)) if is_gone(size) || watch.has_expired(&version) => {
                Expected::Version(version)
            }
            Some(_) => {
                watch.pause().await;
                continue;
            }
        };
        let written = work.to_owned();
        let taken = Hold::take((bucket, &path, &expected), shared.expiry, move || body(&written), gone);
        if let Some(hold) = taken.await? {
            return Ok(Lease::new(Flight { _hold: hold, _turn: turn }));
        }
    }
}

/// What a holder puts: the work, for people, and a token.
fn body(work: &str) -> bytes::Bytes {
    let work: String = work.chars().take(1024).collect();
    serde_json::json!({ "work": work, "token": token() }).to_string().into()
}

/// The right to do some work.
struct Flight {
    _hold: Hold,
    _turn: Turn,
}

/// Whether the service does what writing needs, by a few requests in an object of its own.
pub(crate) async fn probe(bucket: &Bucket) -> Result<Option<&'static str>> {
    let path = bucket.path(&format!("probes/{}", token()))?;
    let body = || bytes::Bytes::from(token() + "probe");
    let outcome = async {
        let Swapped::Done(first) = bucket.swap(&path, &Expected::Absent, body()).await? else {
            return Ok(Some("the service refuses to make an object that is absent"));
        };
        if let Swapped::Done(_) = bucket.swap(&path, &Expected::Absent, body()).await? {
            return Ok(Some(
                "the service replaces an object although the request was to make it only if it is absent",
            ));
        }
        let Swapped::Done(second) = bucket.swap(&path, &Expected::Version(first.clone()), body()).await?
        else {
            return Ok(Some("the service refuses to replace an object of the version that it has stated"));
        };
        if let Swapped::Done(_) = bucket.swap(&path, &Expected::Version(first), body()).await? {
            return Ok(Some(
                "the service replaces an object although it has another version than the request says",
            ));
        }
        let _ = second;
        let found = bucket.read(&path, LARGEST).await?;
        Ok(found.is_none().then_some("the service does not give back what was just written"))
    };
    let outcome = outcome.await;
    match bucket.delete(&path).await {
        Err(e) if outcome.is_ok() => Err(e),
        _ => outcome,
    }
}
