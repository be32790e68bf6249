//! Layers that are no tars.

use std::fs::File;
use std::io::{Cursor, Read as _, Seek as _};

use plyfold_core::layer::{
    Entry, EntryKind, FileKind, ImagePath, LayerEntries, LayerFault, LayerForm, LayerOptions, LayerTar,
    Metadata,
};
use plyfold_core::{Input, Result};

use super::made::Files;
use super::sound;
use crate::MaterializerFixture;

/// A form that any bytes have: one file with all of them.
static ONE_FILE: LayerForm = LayerForm {
    name: "onefile",
    media_types: &[],
    package: env!("CARGO_PKG_NAME"),
    check: |_| Ok(()),
    open: |mut file, _| {
        file.rewind()?;
        Ok(Box::new(OneFile { size: Some(file.metadata()?.len()), file }))
    },
};

struct OneFile {
    file: File,
    /// Until the entry was handed over.
    size: Option<u64>,
}

impl LayerEntries for OneFile {
    fn next_entry(&mut self) -> Result<Option<Entry>> {
        let Some(size) = self.size.take() else { return Ok(None) };
        let kind = EntryKind::Node(FileKind::File { size, content: None });
        let metadata = Metadata { mode: 0o644, ..Metadata::default() };
        Ok(Some(Entry { path: ImagePath::parse(b"file")?, kind, metadata }))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        Ok(self.file.read(buffer)?)
    }
}

pub(super) async fn a_format_of_tars_alone_says_so(fixture: &dyn MaterializerFixture) {
    let materializer = fixture.materializer();
    let says_so = materializer.takes_only_tars();
    if materializer.input() != Input::Layer {
        assert!(!says_so, "it is not made of single layers");
        return;
    }
    let options = LayerOptions { form: Some(&ONE_FILE), ..LayerOptions::default() };
    let mut layer = sound(LayerTar::new(Cursor::new(vec![b'x'; 5000]), options));
    match materializer.layer(&mut layer, &mut Files::spools(fixture)) {
        Ok(_) => assert!(!says_so, "it takes a layer that is no tar"),
        Err(e) => {
            assert_eq!(e.detail(), Some(&LayerFault::NoTar(ONE_FILE.name)), "{e}");
            assert!(says_so, "it takes no layer but tars");
        }
    }
}
