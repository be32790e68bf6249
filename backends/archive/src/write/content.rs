//! What an archive has, with what is stored and not yet in it, and what of an image is missing in both.

use std::collections::HashSet;

use plyfold_core::blocking::Stop;
use plyfold_core::cache::lacking;
use plyfold_core::manifest::{Document, is_document, is_foreign, limits};
use plyfold_core::{Descriptor, Digest, Error, RawManifest, Result};

use super::pushed::Pushed;
use crate::images::Images;
use crate::members::Member;

/// What can be named.
pub(super) struct Content<'a> {
    pub(super) old: Option<&'a Images>,
    pub(super) pushed: &'a Pushed,
    pub(super) stop: &'a Stop,
}

impl Content<'_> {
    /// A blob under the name that a layout has for it.
    fn member(&self, blob: &Descriptor) -> Result<Option<Member>> {
        let found = match (self.pushed.get(blob.digest()), self.old) {
            (Some(member), _) => Some(member),
            (None, Some(old)) => old.in_layout(blob.digest())?,
            (None, None) => None,
        };
        Ok(found.filter(|member| member.size == blob.size()))
    }

    /// A manifest or an index.
    pub(super) fn document(&self, document: &Descriptor) -> Result<Option<RawManifest>> {
        self.stop.check()?;
        let Some(member) = self.member(document)? else { return Ok(None) };
        let bytes = member.document(document.digest().as_ref(), limits::MANIFEST)?;
        RawManifest::described(bytes, document).map(Some)
    }

    /// Whether all blobs of an image are there.
    pub(super) fn has_blobs(&self, raw: &RawManifest) -> Result<bool> {
        for blob in raw.references() {
            if self.member(&blob)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A walk over what names are to lead to.
pub(super) struct Needs<'a> {
    content: &'a Content<'a>,
    absent: HashSet<&'a Digest>,
    /// Digests with sizes, and whether a document is meant: each is looked at once, however often it is listed.
    seen: HashSet<(Digest, u64, bool)>,
    missing: Vec<Digest>,
    /// Blobs that the archive has under other names than those of a layout.
    pub(super) renamed: Vec<(Descriptor, Member)>,
}

impl<'a> Needs<'a> {
    pub(super) fn new(content: &'a Content<'a>, absent: &'a [Digest]) -> Self {
        let (absent, seen) = (absent.iter().collect(), HashSet::new());
        Self { content, absent, seen, missing: Vec::new(), renamed: Vec::new() }
    }

    /// Looks for what a document needs.
    pub(super) fn visit(&mut self, raw: &RawManifest, depth: usize) -> Result<()> {
        if self.is_new(raw.descriptor(), true) { self.walk(raw, depth) } else { Ok(()) }
    }

    fn walk(&mut self, raw: &RawManifest, depth: usize) -> Result<()> {
        if depth == 0 {
            return Err(Error::limit(format!("indexes are nested more than {} deep", limits::NESTING)));
        }
        let is_index = matches!(raw.document(), Document::Index(_));
        for needed in raw.references() {
            let is_document = is_index && is_document(needed.media_type());
            if self.absent.contains(needed.digest())
                || is_foreign(needed.media_type())
                || !self.is_new(&needed, is_document)
            {
                continue;
            }
            if !is_document {
                self.blob(needed)?;
            } else if let Some(child) = self.content.document(&needed)? {
                self.walk(&child, depth - 1)?;
            } else {
                self.missing.push(needed.digest().clone());
            }
        }
        Ok(())
    }

    fn is_new(&mut self, needed: &Descriptor, is_document: bool) -> bool {
        self.seen.insert((needed.digest().clone(), needed.size(), is_document))
    }

    fn blob(&mut self, blob: Descriptor) -> Result<()> {
        if self.content.member(&blob)?.is_some() {
            return Ok(());
        }
        let other = self.content.old.map(|old| old.member(blob.digest())).transpose()?.flatten();
        match other.filter(|member| member.size == blob.size()) {
            Some(member) => self.renamed.push((blob, member)),
            None => self.missing.push(blob.digest().clone()),
        }
        Ok(())
    }

    /// # Errors
    /// `NotFound` with what is missing.
    pub(super) fn check(&self) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let error = lacking("content is not in the archive", &self.missing);
        Err(error.with_hint("push blobs before manifests, and manifests before their index"))
    }
}
