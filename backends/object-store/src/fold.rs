//! The end of a transaction: its names say the outcome themselves, and it goes.

use plyfold_core::Result;

use crate::bucket::{Bucket, Swapped};
use crate::name::{Entry, NameObject, Pending, path};
use crate::transaction::{self, Outcome};

/// Lets each of these names say the outcome of a transaction, and removes the transaction. One that is pending stays.
pub(crate) async fn fold(bucket: &Bucket, id: &str, names: &[String]) -> Result<()> {
    if transaction::outcome(bucket, id).await? == Outcome::Pending {
        return Ok(());
    }
    for name in names {
        fold_name(bucket, id, name).await?;
    }
    bucket.delete(&transaction::path_of(bucket, id)?).await
}

/// Lets a name say the outcome of a transaction that has ended.
pub(crate) async fn fold_name(bucket: &Bucket, id: &str, name: &str) -> Result<()> {
    let path = path(bucket, name)?;
    loop {
        let entry = Entry::settled(bucket, &path).await?;
        if !matches!(&entry.pending, Some(Pending { transaction: Some(of), .. }) if of == id) {
            return Ok(());
        }
        let body = NameObject::body(name, entry.image.clone(), None)?;
        if matches!(bucket.swap(&path, &entry.expected, body).await?, Swapped::Done(_)) {
            return Ok(());
        }
    }
}
