//! The objects below a folder in the order of their paths. In memory are the names of the folders that lead to the next.

use std::sync::Arc;
use std::vec::IntoIter;

use object_store::path::Path;
use object_store::{ObjectMeta, Result};

use super::folder::{Folder, below};

/// A walk that goes on where it was.
#[derive(Debug)]
pub(super) struct Walk {
    folder: Arc<Folder>,
    after: Option<Path>,
    /// Folders that are not read yet, and entries of those that are, the deepest last.
    open: Vec<(Path, IntoIter<String>)>,
    start: Option<Path>,
}

impl Walk {
    pub(super) fn new(folder: Arc<Folder>, start: Path, after: Option<Path>) -> Self {
        Self { folder, after, open: Vec::new(), start: Some(start) }
    }

    /// At most so many objects; none at the end.
    pub(super) fn batch(&mut self, limit: usize) -> Result<Vec<ObjectMeta>> {
        if let Some(start) = self.start.take() {
            self.enter(start)?;
        }
        let mut batch = Vec::new();
        while batch.len() < limit {
            let Some((folder, entries)) = self.open.last_mut() else { break };
            let Some(name) = entries.next() else {
                self.open.pop();
                continue;
            };
            let Some(name) = name.strip_suffix('/') else {
                let path = below(folder, &name)?;
                if self.after.as_ref().is_none_or(|after| path > *after) {
                    batch.extend(self.folder.stat(path)?);
                }
                continue;
            };
            let path = below(folder, name)?;
            // All objects of a folder that is not on the way to `after` are on one side of it.
            let is_before = self.after.as_ref().is_some_and(|after| {
                let inside = format!("{path}/");
                !after.as_ref().starts_with(&inside) && inside.as_str() < after.as_ref()
            });
            if !is_before {
                self.enter(path)?;
            }
        }
        Ok(batch)
    }

    fn enter(&mut self, folder: Path) -> Result<()> {
        let entries = self.folder.entries(&folder)?;
        self.open.push((folder, entries.into_iter()));
        Ok(())
    }
}
