//! Images of a fleet in object storage: S3, Google Cloud Storage, Azure, and what speaks like them.
//!
//! [`ObjectStoreCache`] is a [`CacheProvider`](plyfold_core::CacheProvider) that many machines use at once, with no
//! server of its own. It keeps to the rules of `cache_suite!`, of groups C, K and D: in memory, in a folder, on an S3 service
//! and on Azurite. What is needed of the service: a put that is made only where an object is absent, or has the stated version (`If-None-Match`,
//! `If-Match`), and listings that have what was put before they began, in the order of the names. S3, Google Cloud Storage,
//! Azure, `MinIO` and Ceph give both. A service without conditional puts is read from, and refused for writing.
//!
//! ```no_run
//! # async fn example() -> plyfold_core::Result<()> {
//! use plyfold_object_store::{Config, ObjectStoreCache};
//!
//! // With the credentials of the environment.
//! let cache = ObjectStoreCache::open("s3://images/fleet", &Config::default()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A program that links this crate opens them by their schemes, too: [`Caches::open`](plyfold_core::Caches::open).
//!
//! # The objects
//! ```text
//! plyfold.json                                the version of all this, made by the first writer
//! blobs/ALGORITHM/HEX                         the record of a blob: its state, its size, small content
//! artifacts/HEX                               the record of an artifact: the same, with checksums and hash trees
//! data/blobs/…/ID, data/artifacts/…/ID        content; each attempt to write it has an ID of its own
//! names/NAME                                  a name: what it stands for, whether it is pinned, a change that is pending
//! transactions/ID                             what decides for all names of a change
//! leases/ID                                   protection of content from collections, renewed by its holder
//! flights/HEX                                 the right to do some work, renewed by its holder
//! uses                                        when content was used last; only collections write it
//! probes/ID                                   for a moment
//! ```
//!
//! There is one way to change an object: a put on the condition that it is absent, or still the version that was read. Each
//! body has a token that no other has. So a put whose answer is lost, or that arrives twice, differs from another writer's for who
//! reads it, and a put that arrives late finds another version and does nothing. Therefore a put whose outcome is unknown is made
//! again as long as nothing has changed. An object whose name another writer
//! may use again is never removed, because no service of `object_store` removes on a condition: 16 bytes in its place say that it is
//! gone. Removed are objects alone whose name (an ID) is never used again, and which nothing can name any more. The put of such an
//! object may arrive once more after it was removed: it is an object of a writer that is gone then, and goes with the next
//! collection.
//!
//! What another program writes under the prefix has no name of these, is passed over and stays. An object that has one and
//! was altered is reported as damage where it says what is needed (a name), and is replaced by the next writer.
//!
//! # Writing content
//! A record goes from absent or gone to `writing` with a new ID, and from there to `live`. The record is the lock: its
//! writer renews it, and the one that waits takes over by putting `writing` with another ID when the version has stayed the same for
//! [`lease_seconds`](Config::lease_seconds) of the clock of the one who waits. No date of one machine is compared with one of another.
//! A writer that has lost its record removes the content under its ID, but only when the record does not say that ID: its put may have
//! been made, and the record changed by another since.
//!
//! Publishing is a put on the version that the writer put last, so of two writers one publishes, and one that was slow cannot replace
//! what its successor has published, however late it comes. Size and digest of all bytes are checked before it. The ID stands in
//! the record before anything is written under it, and a record that has left an ID never returns to it: content whose ID
//! its record does not say is no content, and any collection removes it.
//!
//! A writer that ends early leaves, after each of its requests: nothing; a record that is `writing`, which the next one takes over; content
//! that no record names, which a collection removes; or the finished blob.
//!
//! # Changing names
//! One name: a put says what the name will stand for, beside what it stands for (`pending`); then it is looked whether the content is
//! here; then a put makes the change. A writer that ends between the two has changed nothing, and the next writer of
//! the name waits until the object has stayed the same for a third of a lease, and replaces it.
//!
//! Several names: (1) a transaction is put, `pending`; (2) each name, in their order, is put with what it will stand for and the
//! transaction's ID; (3) it is looked whether the content is here; (4) **the transaction is put as `committed`**; (5) the names are put
//! as they are now; (6) the transaction is removed. Who reads a name with an ID reads the transaction: a name stands for the new content
//! if that is `committed`, and for the old one otherwise. So the put of (4) changes all names at once. A writer that ends before it has
//! changed nothing: another one that wants a name puts the transaction, which is not renewed, as `aborted` on the version that it
//! watched, and the put of (4) then fails, now and later. One that ends after it has changed everything: the others
//! finish (5). A name whose transaction is absent is read again. If it has changed, that is its state: (6) comes after (5). If it has
//! not, the transaction was aborted and removed before its writer reached this name, and it stands for the old content.
//! Transactions take names in their order, so two never wait for each other.
//!
//! A reader of one name sees one of its states, the newest. A listing reads one name after the other, and may see a
//! transaction that is made meanwhile in some names and not in others.
//!
//! # Collecting
//! No machine waits for a collection. (1) Leases are read, then names, then records, and core decides what is unused. (2) The record
//! of each unused thing is put as `condemned`. (3) Leases and names are read again; what they lead to by now is put
//! `live` again. (4) The records of the rest are put as gone, each on the version of (2), and their content is removed.
//!
//! Each user of content reads its record, and makes one that is `condemned` `live` again; a caller holds a lease before that, and an
//! update has put what a name will stand for before that. So either the lease or the name is there before (3) reads, or
//! the record is read after (2), and then it changes, and the put of (4) fails. That holds for a collection that was stopped for
//! hours between any two requests, and for several at once. A lease whose holder has ended is known by the dates of the service alone:
//! it is twice as old as it may be, compared with an object that the collection has just written. A holder that was
//! stopped for longer loses its protection, and an update then answers that the content is not here: a name never stands for
//! content that was removed.
//!
//! # When the network fails
//! `object_store` sends a request again that did not arrive, for as long as a lease lasts and 30 s at most, and what only reads also when
//! no byte has come for 20 s. Such a wait is counted from the last byte, so a large blob over a slow network is read to its end. Each
//! put of this crate may be made again, and is. So an operation ends within about a minute when nothing answers, with
//! [`Unavailable`](plyfold_core::ErrorKind::Unavailable). A change of several names may have been made then: its last answer was lost.
//!
//! # What it costs
//! | what | requests |
//! |---|---|
//! | a look for a blob, a small document | 1 |
//! | reading a blob | 2, by ranges as well |
//! | reading an artifact | 2, and 1 for each run of blocks with data; a store in front of the bucket asks for 16 MiB at a time |
//! | storing a blob of at most 16 KiB; a larger one | 4; 5, and one for each 5 MiB |
//! | setting a name; n names at once | 3 and the looks; 4 n + 5 |
//! | a lease | 2, and 4 in each `lease_seconds` |
//! | a collection | 9 listings of 1 for each 1000 objects, 1 for each record, name and lease, 3 for each thing that is removed |
//!
//! # What is not done
//! - A download that is interrupted begins again at 0.
//! - A collection has all records, names and leases in memory; a listing by pages has one page.
//! - An object of another program with a key that is no path of `object_store` (an empty part, as in `names//x`) ends a listing
//!   with an error: its client refuses the page.
//! - A change of a name in the bucket that leaves it a sound object is a change like any other: names have no checksum.
//! - Objects of 16 bytes stay for names and content that are gone.
//! - The parts of an upload whose writer was killed are removed by the service: set a rule for incomplete uploads on the bucket.
//! - A single flight is a right that expires: work of a holder that was stopped for longer goes on beside that of the next
//!   holder. What the two store is decided by the records.

mod artifact;
mod artifact_writer;
mod background;
mod blob_writer;
mod bucket;
mod cache;
mod claim;
mod clock;
mod collect;
mod config;
mod connector;
mod content;
mod entries;
mod error;
mod files;
mod flight;
mod fold;
mod hold;
mod holdings;
mod lease;
mod name;
mod name_list;
mod reading;
mod record;
mod service;
mod shared;
mod stored_artifact;
mod sweep;
mod transaction;
mod tries;
mod update;
mod upload;
mod verify;
mod watch;

pub use cache::ObjectStoreCache;
pub use config::Config;
