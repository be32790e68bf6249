//! What an image of a directory needs.

use std::collections::HashSet;

use plyfold_core::blocking::Stop;
use plyfold_core::manifest::{Document, is_document, is_foreign, limits};
use plyfold_core::{Descriptor, Digest, Error, RawManifest, Result};

use super::folder::{Folder, blob_name, document_name};

/// A walk over everything that a document leads to.
pub(super) struct Needs<'a> {
    folder: &'a Folder,
    stop: &'a Stop,
    /// What may be missing; `None` for all.
    absent: Option<HashSet<&'a Digest>>,
    /// The files that it needs, there or not: each is looked at once.
    pub(super) files: HashSet<String>,
    /// What is not there.
    pub(super) missing: Vec<Digest>,
}

impl<'a> Needs<'a> {
    /// Of an image, but for what is `absent`; without that only the files, which are not looked for.
    ///
    /// # Errors
    /// `Limit` for indexes in indexes without end; `Corrupt` for documents that are damaged.
    pub(super) fn of(
        folder: &'a Folder,
        top: &RawManifest,
        absent: Option<&'a [Digest]>,
        stop: &'a Stop,
    ) -> Result<Self> {
        let (files, missing) = (HashSet::new(), Vec::new());
        let mut needs =
            Self { folder, stop, absent: absent.map(|absent| absent.iter().collect()), files, missing };
        needs.walk(top, limits::NESTING)?;
        Ok(needs)
    }

    fn walk(&mut self, raw: &RawManifest, depth: usize) -> Result<()> {
        if depth == 0 {
            return Err(Error::limit(format!("indexes are nested more than {} deep", limits::NESTING)));
        }
        let is_index = matches!(raw.document(), Document::Index(_));
        for needed in raw.references() {
            self.stop.check()?;
            if is_index && is_document(needed.media_type()) {
                self.document(&needed, depth)?;
            } else if self.files.insert(blob_name(needed.digest()))
                && !self.may_lack(needed.digest())
                && !is_foreign(needed.media_type())
                && !self.folder.has_blob(&needed, self.stop)?
            {
                self.missing.push(needed.digest().clone());
            }
        }
        Ok(())
    }

    fn document(&mut self, listed: &Descriptor, depth: usize) -> Result<()> {
        if !self.files.insert(document_name(listed.digest())) {
            return Ok(());
        }
        match self.folder.document(listed)? {
            Some(child) => self.walk(&child, depth - 1)?,
            None if self.may_lack(listed.digest()) => {}
            None => self.missing.push(listed.digest().clone()),
        }
        Ok(())
    }

    fn may_lack(&self, digest: &Digest) -> bool {
        self.absent.as_ref().is_none_or(|absent| absent.contains(digest))
    }
}
