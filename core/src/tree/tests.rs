//! Layers in a line: `d/` a directory, `f=1` a file, `h>f` a hard link, `s@to` a symbolic link, `c!` a character
//! device 0:0; a mode may follow a directory (`d/700`). What comes out is written the same way.

use std::fmt::Write as _;

use super::{Kind, LayerTree, LayerTreeBuilder, NodeId, Tree};
use crate::layer::{Entry, EntryKind, FileKind, ImagePath, Metadata};
use crate::{ErrorKind, Result};

fn path(text: &str) -> ImagePath {
    ImagePath::from_clean(text.trim_end_matches('/').as_bytes().to_vec())
}

fn layer(text: &str) -> Result<LayerTree<String>> {
    let mut builder = LayerTreeBuilder::new();
    for word in text.split_whitespace() {
        let at = word.find(['=', '>', '@', '!']).or_else(|| word.rfind('/')).unwrap();
        let (name, rest) = (&word[..at], &word[at + 1..]);
        let mut metadata = Metadata { mode: 0o644, ..Metadata::default() };
        let kind = match word.as_bytes()[at] {
            b'=' => EntryKind::Node(FileKind::File { size: rest.len() as u64, content: None }),
            b'>' => EntryKind::HardLink { target: path(rest) },
            b'@' => EntryKind::Node(FileKind::Symlink { target: rest.as_bytes().into() }),
            b'!' => EntryKind::Node(FileKind::CharDevice { major: 0, minor: 0 }),
            _ => {
                metadata.mode = u16::from_str_radix(rest, 8).unwrap_or(0o700);
                EntryKind::Node(FileKind::Directory(()))
            }
        };
        builder.insert(Entry { path: path(name), kind, metadata }, |_, _| Ok(rest.to_owned()))?;
    }
    builder.finish()
}

fn show(tree: &Tree<String>) -> String {
    let mut text = String::new();
    for (path, id) in tree.walk().skip(1) {
        let path = String::from_utf8_lossy(path.as_bytes()).into_owned();
        let node = tree.node(id);
        match &node.kind {
            Kind::Directory(directory) => {
                let implied = if directory.implied { "?" } else { "" };
                let opaque = if directory.opaque { "*" } else { "" };
                write!(text, "{path}/{:o}{implied}{opaque} ", node.mode).unwrap();
                for name in tree.whiteouts(id) {
                    write!(text, "{path}/.wh.{} ", String::from_utf8_lossy(name)).unwrap();
                }
            }
            Kind::File { content, .. } if tree.links(id) > 1 => {
                write!(text, "{path}={content}x{} ", tree.links(id)).unwrap();
            }
            Kind::File { content, .. } => write!(text, "{path}={content} ").unwrap(),
            Kind::Symlink { target } => write!(text, "{path}@{} ", String::from_utf8_lossy(target)).unwrap(),
            _ => write!(text, "{path}! ").unwrap(),
        }
    }
    for name in tree.whiteouts(NodeId::ROOT) {
        write!(text, ".wh.{} ", String::from_utf8_lossy(name)).unwrap();
    }
    text.trim_end().to_owned()
}

#[test]
fn one_layer_follows_the_rules() {
    for (entries, tree) in [
        ("f=1 f=2", "f=2"),
        ("f=1 f@t", "f@t"),
        ("d/755 d/f=1 d/711", "d/711 d/f=1"),
        ("a/b/f=1", "a/755? a/b/755? a/b/f=1"),
        ("a/f=1 a/700", "a/700 a/f=1"),
        ("d/700 d/f=1 d=2", "d=2"),
        ("d=1 d/700 d/f=2", "d/700* d/f=2"),
        ("f=1 f/g=2", "f/755* f/g=2"),
        ("usr/700 lib@usr lib/f=1", "lib@usr usr/700 usr/f=1"),
        ("lib@/../usr/./lib lib/f=1", "lib@/../usr/./lib usr/755? usr/lib/755? usr/lib/f=1"),
        ("a/700 a/s@../b a/s/f=1", "a/700 a/s@../b b/755? b/f=1"),
        ("a/700 a/s@/b a/s/f=1", "a/700 a/s@/b b/755? b/f=1"),
        ("c/700 b@c a@b a/f=1", "a@b b@c c/700 c/f=1"),
        ("f=1 h>f", "f=1x2 h=1x2"),
        ("h>f f=1", "f=1x2 h=1x2"),
        ("a>b b>c c>d d=1 d=2", "a=2x4 b=2x4 c=2x4 d=2x4"),
        ("f=1 h>f f=2", "f=2 h=1"),
        ("s@nowhere h>s", "h@nowhere s@nowhere"),
        ("d/700 l@d d/f=1 h>l/f", "d/700 d/f=1x2 h=1x2 l@d"),
        ("h>f h=2 f=1", "f=1 h=2"),
        ("d/700 d/h>f d=1 f=2", "d=1 f=2"),
        (".wh.f=", ".wh.f"),
        ("f!", ".wh.f"),
        (".wh.f= f=1", "f=1"),
        ("f=1 .wh.f=", "f=1"),
        (".wh.d= d/700 d/f=1", "d/700* d/f=1"),
        ("d/700 d/f=1 .wh.d=", "d/700* d/f=1"),
        ("d/f=1 .wh.d=", "d/755* d/f=1"),
        ("d/700 d/.wh..wh..opq= d/f=1", "d/700* d/f=1"),
        ("d/f=1 d/.wh..wh..opq=", "d/755?* d/f=1"),
        ("d/.wh.f= .wh.d=", "d/755*"),
        (".wh.d= d/.wh.f=", ".wh.d"),
        ("f=1 f/.wh.g=", "f=1"),
        ("f/.wh.g= f=1", "f=1"),
        ("usr/700 lib@usr lib/.wh.f=", "lib@usr usr/700 usr/.wh.f"),
        ("b/700 a/.wh.a= a@/b", "a@/b b/700"),
        ("b/700 a/700 a/.wh.a= a@/b", "a@/b b/700"),
        ("b/700 a/a! a@/b", "a@/b b/700"),
        ("b/700 a@/b a/.wh.a=", "a@/b b/700 b/.wh.a"),
        ("b/700 a/.wh..wh..opq= a@/b", "a@/b b/700"),
        ("b/700 a@/b a/.wh..wh..opq=", "a@/b b/700*"),
        ("a@/b a/.wh.a= a/700", "a/700* b/755? b/.wh.a"),
        (".wh.h= h>f f=1", "f=1x2 h=1x2"),
        (".wh..wh.plnk/1.2=x .wh..wh.aufs=", ""),
    ] {
        assert_eq!(show(&layer(entries).unwrap().tree), tree, "{entries}");
    }
}

#[test]
fn malformed_layers_are_refused() {
    for entries in [
        "h>h",
        "h=1 h>h",
        "d/700 l@d d/h=1 l/h>d/h",
        "d/700 h>d",
        "h>",
        "h>.wh.f",
        ".wh.a/b=1",
        "a@b b@a a/f=1",
        "a@b b@a a/.wh.f=",
        "=1",
        "!",
    ] {
        assert_eq!(layer(entries).unwrap_err().kind(), &ErrorKind::Corrupt, "{entries}");
    }
}

#[test]
fn layers_stack_as_overlayfs_does() {
    for (layers, tree) in [
        (&["f=1", "f=2"][..], "f=2"),
        (&["d/700 d/f=1", "d/711 d/g=2"], "d/711 d/f=1 d/g=2"),
        (&["d/700 d/f=1", "d/g=2"], "d/700 d/f=1 d/g=2"),
        (&["d/700 d/f=1", ".wh.d="], ""),
        (&["d/700 d/f=1 d/g=1", "d/.wh.f="], "d/700 d/g=1"),
        (&["d/700 d/f=1", ".wh.d= d/711 d/g=2"], "d/711 d/g=2"),
        (&["d/700 d/f=1", "d/711 d/g=2 .wh.d="], "d/711 d/g=2"),
        (&["d/700 d/f=1", "d/g=2 .wh.d="], "d/755 d/g=2"),
        (&["d/700 d/f=1", "d/.wh..wh..opq="], "d/700"),
        (&["d/700 d/e/700 d/e/f=1", "d/711 d/.wh..wh..opq= d/e/711"], "d/711 d/e/711"),
        (&["d/700 d/f=1", "d=2"], "d=2"),
        (&["d/700 d/f=1", "d=2", "d/711"], "d/711"),
        (&["d=1", "d/700 d/f=2"], "d/700 d/f=2"),
        (&["d=1", "d/f=2"], "d/755? d/f=2"),
        (&[".wh.f= d/.wh.f= e/.wh..wh..opq=", "g=1"], "d/755? e/755? g=1"),
        (&["g=1", ".wh.f= n/m/.wh.f=", "n/m/f=2"], "g=1 n/755? n/m/755? n/m/f=2"),
        (
            &["usr/lib/f=1 lib@usr/lib", "lib/g=2"],
            "lib@usr/lib usr/755? usr/lib/755? usr/lib/f=1 usr/lib/g=2",
        ),
        (&["usr/lib/f=1 lib@usr/lib", "lib/.wh.f="], "lib@usr/lib usr/755? usr/lib/755?"),
        (&["lib@usr/lib", "lib/g=2"], "lib@usr/lib usr/755? usr/lib/755? usr/lib/g=2"),
        (
            &["usr/lib/f=1 lib@usr/lib", "lib/700 lib/g=2"],
            "lib/700 lib/g=2 usr/755? usr/lib/755? usr/lib/f=1",
        ),
        (&["s@f f=1", "s/g=2"], "f=1 s/755? s/g=2"),
        (&["f=1", "h>f"], "f=1x2 h=1x2"),
        (&["f=1", "h>f .wh.f="], "h=1"),
        (&["f=1", "h>f f=2"], "f=2 h=1"),
        (&["f=1", "h>f f@t"], "f@t h=1"),
        (&["f=1", "h>f f/700"], "f/700 h=1"),
        (&["f=1", "g>f h>g f=2"], "f=2 g=1x2 h=1x2"),
        (&["f=1", "h>g g>f f=2"], "f=2x2 g=1 h=2x2"),
        (&["f=1 g=3", "h>g g>f f=2"], "f=2 g=1 h=3"),
        (&["f=1 g=1", "h>f f=2 g>f"], "f=2x2 g=2x2 h=1"),
        (&["x=1", "h>f f=2"], "f=2x2 h=2x2 x=1"),
        (&["f/700", "h>f f=2"], "f=2x2 h=2x2"),
        (&["f=1", "g=2", "h>f f=3"], "f=3 g=2 h=1"),
        (&["f=1", "f=2 g>f .wh.f="], "f=2x2 g=2x2"),
        (&["f=1 g>f", ".wh.f="], "g=1"),
        (&["s@x", "d/h>s"], "d/755? d/h@x s@x"),
        (&["f=1", ".wh.h= h>f"], "f=1x2 h=1x2"),
        (&["a/700 a/a=1 b/700 b/a=2", "a/.wh.a= a@/b"], "a@/b b/700 b/a=2"),
        (&["a/700 a/a=1 b/700 b/a=2", "a@/b a/.wh.a="], "a@/b b/700"),
        (&["a/700 a/a=1 b/700 b/a=2", "a/.wh..wh..opq= a@/b"], "a@/b b/700 b/a=2"),
        (&["a/700 a/a=1 b/700 b/a=2", "a@/b a/.wh..wh..opq="], "a@/b b/700"),
        // Each link is to what its target is when the link is read, as umoci and podman extract them.
        (&["a=1 b=2", "c>a a>b"], "a=2x2 b=2x2 c=1"),
        (&["a=1 b=2", "c>a a=3 a>b"], "a=2x2 b=2x2 c=1"),
        (&["a=1 b=2", "a>b b>a"], "a=2x2 b=2x2"),
        (&["a=1 b=2 t=0", "t>a a>b b>t"], "a=2 b=1x2 t=1x2"),
    ] {
        let image = Tree::from_layers(layers.iter().map(|text| layer(text))).unwrap();
        assert_eq!(show(&image), tree, "{layers:?}");
    }
}

/// Where umoci and podman, which extract in order, have the same tree.
#[test]
fn links_are_to_what_the_layers_own_symbolic_links_lead_to() {
    for (lower, upper, tree) in [
        ("d/700 d/a=1 e/700 e/a=2", "d@e b>d/a", "b=2x2 d@e e/700 e/a=2x2"),
        ("e/700 e/b=2", "d@e b>d/b", "b=2x2 d@e e/700 e/b=2x2"),
        ("e/700 e/b=2 f/700 f/b=3", "x/d@../e b>x/d/b", "b=2x2 e/700 e/b=2x2 f/700 f/b=3 x/755? x/d@../e"),
        ("e/700 e/b=2 l@e", "d@l b>d/b", "b=2x2 d@l e/700 e/b=2x2 l@e"),
    ] {
        let image = Tree::from_layers([layer(lower), layer(upper)]).unwrap();
        assert_eq!(show(&image), tree, "{lower} + {upper}");
    }
}

/// In the order of the tar each of these is another tree than in any other order.
#[test]
fn a_layer_whose_order_decides_is_refused_where_a_symbolic_link_is_below() {
    for (lower, upper) in [
        ("r/700 r/x=1 s@r", "s/new=2 s@q"),
        ("r/700 r/x=1 s@r", "s/x=2 s@q"),
        ("r/700 r/x=1 s@r", "s/x=2 s=3"),
        ("r/700 r/x=1 s@r", "f=1 s/x=2 s>f"),
        ("r/700 r/x=1 s@r f=1", "s/x=2 s>f"),
        ("r/700 r/x=1 s@r", "s/.wh.x= s@q"),
        ("r/700 r/x=1 s@r", "s/.wh.x= .wh.s="),
        ("r/700 r/x=1 s@r", "s/.wh..wh..opq= .wh.s="),
        ("r/700 r/x=1 s@r", "s/new=2 .wh.s="),
        ("r/700 r/x=1 s@r", "s/new=2 s/700"),
        ("r/700 r/x=1 s@r", "s/new=2 .wh..wh..opq="),
        ("e/700 e/a=1 d@e", "d/.wh.a= .wh.d= d/700"),
        ("a/700 r/700 r/x=1 a/s@../r", "a/s/new=2 a@q"),
        ("a/700 r/700 r/x=1 a/s@../r", "a/700 a/s/new=2 a=3"),
        ("a/700 r/700 r/x=1 a/s@../r", "a/s/new=2 .wh.a= a/700"),
        ("a/700 r/700 r/x=1 a/s@../r", "a/s/new=2 a/.wh..wh..opq= a=1"),
        ("a/700 a/s@../r r/700 r/x=1", "a/700 a/s/t=1 a/.wh..wh..opq="),
        ("r/700 r/x=1 s@r", "s/n=2 s/700 s@q"),
        ("r/700 r/x=1 s@r", "l>s l/x=2"),
        ("r/700 r/x=1 s@r", "l>s l/.wh.x="),
        ("r/700 r/x=1 s@r", "l>s l/.wh..wh..opq="),
        // One file under two names.
        ("r/700 r/x=1 s@r", "s/x=2 r/x=3"),
        ("r/700 r/x=1 s@r t@r", "s/x=2 t/x=3"),
        ("r/700 r/x/700 s@r", "s/.wh.x= r/x/y=3"),
        ("r/700 r/x=1 s@r", "s/.wh..wh..opq= r/y=3"),
        ("r/700 r/x=1 s@r", "r/711 r/.wh..wh..opq= s/y=3"),
        ("r/700 r/d/700 s@r", "r/d/711 s/d/722"),
        ("r/700 r/d/700 s@r", "r/d/f=1 s/d=2"),
        ("r/700 r/x=1 s@r", "h>r/x s/x=2"),
        // A symbolic link below that leads elsewhere afterwards.
        ("d/700 e/700 s@d", "s/new=1 d@e"),
        ("d/700 d/a=1 e/700 e/a=2 s@d", "d@e b>s/a"),
        ("d/700 d/a=1 s@d", "d/a=2 b>s/a"),
        ("d/700 d/a=1 s@d", ".wh.d= b>s/a"),
        ("d/700 d/a=1 s@d", "d/700 d/.wh..wh..opq= b>s/a"),
        ("x@y/z y/700 y/z/700 y/b=1", "l@x/.. b>l/b"),
    ] {
        let error = Tree::from_layers([layer(lower), layer(upper)]).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Unsupported, "{lower} + {upper}: {error}");
    }
}

/// The same layers where nothing below is a symbolic link, and those whose order does not decide.
#[test]
fn a_layer_whose_order_decides_nothing_is_taken() {
    for (lower, upper, tree) in [
        ("s/700 s/x=1", "s/new=2 s@q", "s@q"),
        ("s/700 s/x=1", "s/.wh.x= .wh.s=", "s/755"),
        ("s/700 s/x=1", "s/new=2 .wh.s=", "s/755 s/new=2"),
        ("s/700 s/x=1", "s/new=2 s/711", "s/711 s/new=2 s/x=1"),
        ("a/700 a/s/700 a/s/x=1", "a/s/new=2 a@q", "a@q"),
        ("r/700 r/x=1 s@r", "s@q", "r/700 r/x=1 s@q"),
        ("r/700 r/x=1 s@r", "s/700 s/new=2 s@q", "r/700 r/x=1 s@q"),
        ("r/700 r/x=1 s@r", "s@q s/new=2", "q/755? q/new=2 r/700 r/x=1 s@q"),
        ("r/700 r/x=1 s@r", ".wh.s= s/new=2", "r/700 r/x=1 s/755 s/new=2"),
        ("r/700 r/x=1 s@r", "r/y=2 s/z=3", "r/700 r/x=1 r/y=2 r/z=3 s@r"),
        ("r/700 r/x=1 s@r", "r/711 s/z=3", "r/711 r/x=1 r/z=3 s@r"),
        ("r/700 r/d/700 s@r", "r/d/f=1 s/d/g=2", "r/700 r/d/700 r/d/f=1 r/d/g=2 s@r"),
        ("a/700 a/s@../r r/700 r/x=1", "a/.wh..wh..opq= a/s/t=1", "a/700 a/s/755? a/s/t=1 r/700 r/x=1"),
        (
            "a/700 a/s@../r r/700 r/x=1",
            "a/.wh..wh..opq= a/s/t=1 a/s/711",
            "a/700 a/s/711 a/s/t=1 r/700 r/x=1",
        ),
        ("r/700 r/x=1 s@r", "s/.wh.x= r/x=3", "r/700 r/x=3 s@r"),
        ("r/700 r/x=1 s@r", "r/x=3 s/.wh.x=", "r/700 r/x=3 s@r"),
        ("r/700 r/d/700 s@r", "r/d/711 s/d/711 s/d/f=2", "r/700 r/d/711 r/d/f=2 s@r"),
        ("s@r", "s/.wh.x=", "s@r"),
        ("s@r", "s/.wh..wh..opq=", "s@r"),
        ("s@r", "s/n/.wh..wh..opq=", "s@r"),
        ("f=1", "f/n/.wh.g=", "f=1"),
        ("a/700 a/s@q f=1", "l>a/s a@a", "a@a f=1 l@q"),
        ("f=1 x=2", "s>f s/.wh.g= s/n/.wh..wh..opq=", "f=1x2 s=1x2 x=2"),
        ("r/700 r/x=1 s@r", "s/h>s", "r/700 r/h@r r/x=1 s@r"),
        ("f=1", "f/.wh.g= f/.wh..wh..opq=", "f=1"),
        ("d/700 d/a=1 s@d", "b>s/a", "b=1x2 d/700 d/a=1x2 s@d"),
        ("d/700 d/a=1 s@d", "b>s/a s/c=2", "b=1x2 d/700 d/a=1x2 d/c=2 s@d"),
    ] {
        let image = Tree::from_layers([layer(lower), layer(upper)]).unwrap();
        assert_eq!(show(&image), tree, "{lower} + {upper}");
    }
}

/// As umoci, which extracts in order: the file is gone when the link to it is made.
#[test]
fn hard_links_to_what_their_layer_has_hidden_are_refused() {
    for (lower, upper) in [
        ("f=1", ".wh.f= h>f"),
        ("f=1", "f! h>f"),
        ("f=1", ".wh.f= h>f f=2"),
        ("d/700 d/f=1", ".wh.d= h>d/f"),
        ("d/700 d/f=1", ".wh.d= d/700 h>d/f"),
        ("d/700 d/f=1", "d/.wh..wh..opq= h>d/f"),
        ("d/700 d/e/700 d/e/f=1", "d/.wh..wh..opq= h>d/e/f"),
        ("d/700 d/e/700 d/e/f=1", "d/.wh..wh..opq= d/e/g=2 h>d/e/f"),
        ("d/700 d/f=1", "d=2 h>d/f"),
        ("d/700 d/f=1", "d=2 d/700 h>d/f"),
        ("d/700 d/f=1", "d/700 l@d d/.wh.f= h>l/f"),
    ] {
        let error = Tree::from_layers([layer(lower), layer(upper)]).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Corrupt, "{upper}");
        assert!(error.message().contains("hides"), "{upper}: {error}");
    }
    for (lower, upper, tree) in [
        ("f=1", "h>f .wh.f=", "h=1"),
        ("f=1", ".wh.g= h>f", "f=1x2 h=1x2"),
        ("f=1 g=2", ".wh.f= f=3 h>f", "f=3x2 g=2 h=3x2"),
        ("d/700 d/f=1", "h>d/f d/.wh..wh..opq=", "d/700 h=1"),
        ("d/700 d/f=1", "d/711 d/.wh.g= h>d/f", "d/711 d/f=1x2 h=1x2"),
        ("d/700 d/f=1 l@d", "h>l/f", "d/700 d/f=1x2 h=1x2 l@d"),
    ] {
        let image = Tree::from_layers([layer(lower), layer(upper)]).unwrap();
        assert_eq!(show(&image), tree, "{upper}");
    }
}

#[test]
fn hard_links_to_nothing_are_refused() {
    for layers in [
        &["h>f"][..],
        &["h>d d/700"],
        &["d/1=1", "h>d d/700"],
        &["f=1", ".wh.f=", "h>f"],
        &["d/700", "h>d"],
        &["a@a", "h>a/f"],
    ] {
        let error = Tree::from_layers(layers.iter().map(|text| layer(text))).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Corrupt, "{layers:?}");
    }
}

#[test]
fn a_chain_of_10_000_links_in_the_worst_order_is_one_file() {
    let mut text = String::new();
    for link in 0..10_000 {
        write!(text, "l{link:05}>l{:05} ", link + 1).unwrap();
    }
    text.push_str("l10000=1");
    let tree = layer(&text).unwrap().tree;
    let file = tree.child(NodeId::ROOT, b"l00000").unwrap();
    assert_eq!(tree.links(file), 10_001);
    assert_eq!(tree.child(NodeId::ROOT, b"l10000"), Some(file));
}

#[test]
fn links_cannot_nest_directories_without_end() {
    let deep = "d/".repeat(1500);
    let entries = format!("{deep}f=1 s@{} s/{deep}f=2", deep.trim_end_matches('/'));
    assert_eq!(layer(&entries).unwrap_err().kind(), &ErrorKind::Limit);
}

#[test]
fn directories_have_two_links_and_one_for_each_subdirectory() {
    let tree = layer("a/700 b/700 b/c/700 f=1").unwrap().tree;
    assert_eq!(tree.links(NodeId::ROOT), 4);
    assert_eq!(tree.links(tree.child(NodeId::ROOT, b"b").unwrap()), 3);
}

#[test]
fn the_upper_root_wins_unless_it_is_implied() {
    let image = |layers: [&str; 2]| Tree::from_layers(layers.iter().map(|text| layer(text))).unwrap();
    assert_eq!(image(["/700 f=1", "g=1"]).node(NodeId::ROOT).mode, 0o700);
    assert_eq!(image(["/700 f=1", "g=1 /711"]).node(NodeId::ROOT).mode, 0o711);
    assert_eq!(image(["f=1", "g=1"]).node(NodeId::ROOT).mode, 0o755);
}
