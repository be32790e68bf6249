//! The names of all directories of a tree, in two arenas: 16 bytes for each, and the bytes of the names with their lengths.
//!
//! A directory's names are a treap (a binary search tree by name, a heap by a pseudo-random priority): it needs
//! nothing but two references in each name, stays balanced whatever order the names come in, and moves to another
//! directory or another tree without being copied. The priorities come from a key that no layer can know, so no
//! layer can choose names that unbalance it. Nothing here recurses.
//!
//! Names that come in order, as those of an image's directory do, are put behind the last one without a search.

use std::cmp::Ordering;
use std::hash::{BuildHasher as _, RandomState};

use crate::Result;

use super::fault::TreeFault;
use super::pages::{Pages, Texts};

/// No name.
pub(super) const NONE: u32 = u32::MAX;

/// A name in a directory, by its place in the arena.
pub(super) type LinkId = u32;

/// A name and what it leads to.
#[derive(Clone, Copy, Debug)]
struct Link {
    /// Where the name's bytes are.
    text: u32,
    child: u32,
    /// Less and greater names.
    below: [LinkId; 2],
}

/// All names of a tree.
#[derive(Clone, Debug)]
pub(super) struct Names {
    links: Pages<Link>,
    texts: Texts,
    key: u64,
    /// The way from a root to the greatest name below it: that of the last name which was put behind all others.
    spine: Vec<LinkId>,
}

/// Where a reference to a link is kept: on a side below another one, or at the root.
type Slot = Option<(LinkId, usize)>;

impl Names {
    pub(super) fn new() -> Self {
        let key = RandomState::new().hash_one(0);
        Self { links: Pages::new(), texts: Texts::default(), key, spine: Vec::new() }
    }

    /// The number of names ever made.
    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    /// Bytes of all names ever made.
    pub(super) fn byte_count(&self) -> usize {
        self.texts.byte_count()
    }

    pub(super) fn name(&self, link: LinkId) -> &[u8] {
        self.texts.text(self.links[link as usize].text)
    }

    pub(super) fn child(&self, link: LinkId) -> u32 {
        self.links[link as usize].child
    }

    pub(super) fn set_child(&mut self, link: LinkId, child: u32) {
        self.links[link as usize].child = child;
    }

    /// A new name that no directory has yet.
    ///
    /// # Errors
    /// `Limit` for a name of more than 65,533 bytes, and when the arenas are full.
    pub(super) fn push(&mut self, name: &[u8], child: u32) -> Result<LinkId> {
        let count = self.links.len();
        let id = u32::try_from(count).ok().filter(|id| *id < NONE);
        let pushed = id.and_then(|id| Some((id, self.texts.push(name)?)));
        let (id, text) = pushed.ok_or_else(|| TreeFault::NamesFull(count, self.byte_count()))?;
        self.links.push(Link { text, child, below: [NONE; 2] });
        Ok(id)
    }

    /// The link of that name below `root`.
    pub(super) fn find(&self, root: LinkId, name: &[u8]) -> Option<LinkId> {
        if self.is_behind(root, name) {
            return None;
        }
        let mut at = root;
        while at != NONE {
            // An index from the order would keep the processor from reading the next link before the names are compared.
            let [less, greater] = self.links[at as usize].below;
            at = match name.cmp(self.name(at)) {
                Ordering::Equal => return Some(at),
                Ordering::Less => less,
                Ordering::Greater => greater,
            };
        }
        None
    }

    /// Puts a link below `root`, which has none of its name.
    pub(super) fn insert(&mut self, root: &mut LinkId, link: LinkId) {
        let priority = self.priority(link);
        if *root == NONE || self.is_behind(*root, self.name(link)) {
            return self.insert_behind(root, link, priority);
        }
        self.spine.clear();
        let (mut slot, mut at, mut is_last) = (None, *root, true);
        while at != NONE && self.priority(at) >= priority {
            let side = self.side(at, link);
            is_last &= side == 1;
            (slot, at) = (Some((at, side)), self.links[at as usize].below[side]);
        }
        // What stands below is split by the name.
        let mut ends = [(link, 0), (link, 1)];
        while at != NONE {
            let side = self.side(at, link);
            is_last &= side == 1;
            self.set(Some(ends[1 - side]), at, root);
            ends[1 - side] = (at, side);
            at = self.links[at as usize].below[side];
        }
        for end in ends {
            self.set(Some(end), NONE, root);
        }
        self.set(slot, link, root);
        if is_last {
            let mut at = *root;
            while at != NONE {
                self.spine.push(at);
                at = self.links[at as usize].below[1];
            }
        }
    }

    /// Whether the name is known to be greater than all below `root`.
    fn is_behind(&self, root: LinkId, name: &[u8]) -> bool {
        match self.spine[..] {
            [first, .., last] | [first @ last] if first == root => name > self.name(last),
            _ => false,
        }
    }

    /// As [`Names::insert`], for a name that is greater than all others.
    fn insert_behind(&mut self, root: &mut LinkId, link: LinkId, upper: u64) {
        if *root == NONE {
            self.spine.clear();
        }
        let mut below = NONE;
        while let Some(at) = self.spine.pop_if(|at| priority(self.key, *at) < upper) {
            below = at;
        }
        self.links[link as usize].below = [below, NONE];
        let slot = self.spine.last().map(|at| (*at, 1));
        self.set(slot, link, root);
        self.spine.push(link);
    }

    /// Takes the link of that name out of `root`.
    pub(super) fn remove(&mut self, root: &mut LinkId, name: &[u8]) -> Option<LinkId> {
        let (mut slot, mut at) = (None, *root);
        // Of a name that is not found nothing changes.
        if at != NONE {
            self.spine.clear();
        }
        loop {
            if at == NONE {
                return None;
            }
            let order = name.cmp(self.name(at));
            if order.is_eq() {
                break;
            }
            let side = usize::from(order.is_gt());
            (slot, at) = (Some((at, side)), self.links[at as usize].below[side]);
        }
        let mut below = self.links[at as usize].below;
        while let [left, right] = below
            && left != NONE
            && right != NONE
        {
            let side = usize::from(self.priority(left) < self.priority(right));
            let upper = below[side];
            self.set(slot, upper, root);
            slot = Some((upper, 1 - side));
            below[side] = self.links[upper as usize].below[1 - side];
        }
        let [left, right] = below;
        self.set(slot, if left == NONE { right } else { left }, root);
        Some(at)
    }

    /// The links below `root` in the order of their names.
    pub(super) fn cursor(&self, root: LinkId) -> Cursor {
        let mut cursor = Cursor { way: Vec::new() };
        cursor.descend(self, root);
        cursor
    }

    /// Appends another tree's names, whose children are `by` further on; yields how far its links were moved.
    pub(super) fn append(&mut self, other: Self, by: u32) -> Result<u32> {
        let full = || TreeFault::TooManyNames;
        let moved = u32::try_from(self.links.len()).map_err(|_| full())?;
        if self.links.len() + other.links.len() >= NONE as usize {
            return Err(full().into());
        }
        let texts = self.texts.append(other.texts).ok_or_else(full)?;
        let shift = |link: u32| if link == NONE { NONE } else { link + moved };
        for Link { text, child, below } in other.links {
            let child = if child == NONE { NONE } else { child + by };
            self.links.push(Link { text: text + texts, child, below: below.map(shift) });
        }
        Ok(moved)
    }

    /// The side of `at` on which the name of `link` belongs.
    fn side(&self, at: LinkId, link: LinkId) -> usize {
        usize::from(self.name(link) >= self.name(at))
    }

    fn set(&mut self, slot: Slot, link: LinkId, root: &mut LinkId) {
        match slot {
            Some((at, side)) => self.links[at as usize].below[side] = link,
            None => *root = link,
        }
    }

    fn priority(&self, link: LinkId) -> u64 {
        priority(self.key, link)
    }
}

/// The finalizer of `SplitMix64` over key and place.
fn priority(key: u64, link: LinkId) -> u64 {
    let mut mixed = key.wrapping_add(u64::from(link).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A place within the names of a directory. It borrows nothing: a link that it has passed may be moved.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    way: Vec<LinkId>,
}

impl Cursor {
    pub(super) fn next(&mut self, names: &Names) -> Option<LinkId> {
        let link = self.way.pop()?;
        self.descend(names, names.links[link as usize].below[1]);
        Some(link)
    }

    fn descend(&mut self, names: &Names, mut at: LinkId) {
        while at != NONE {
            self.way.push(at);
            at = names.links[at as usize].below[0];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{NONE, Names};
    use std::collections::BTreeMap;

    fn listed(names: &Names, root: u32) -> Vec<(Vec<u8>, u32)> {
        let mut cursor = names.cursor(root);
        let mut all = Vec::new();
        while let Some(link) = cursor.next(names) {
            all.push((names.name(link).to_vec(), names.child(link)));
        }
        all
    }

    #[test]
    fn names_are_kept_as_by_a_map() {
        let (mut names, mut root, mut map) = (Names::new(), NONE, BTreeMap::new());
        let mut state = 1_u32;
        for step in 0..20_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let name = format!("{}", (state >> 16) % 500).into_bytes();
            if state & 1 == 0 {
                if let Some(link) = names.find(root, &name) {
                    names.set_child(link, step);
                } else {
                    let link = names.push(&name, step).unwrap();
                    names.insert(&mut root, link);
                }
                map.insert(name, step);
            } else {
                let removed = names.remove(&mut root, &name).map(|link| names.child(link));
                assert_eq!(removed, map.remove(&name));
            }
        }
        assert_eq!(listed(&names, root), map.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn sorted_names_leave_the_tree_shallow() {
        let (mut names, mut root) = (Names::new(), NONE);
        for number in 0..100_000_u32 {
            let link = names.push(&number.to_be_bytes(), number).unwrap();
            names.insert(&mut root, link);
        }
        let mut deepest = 0;
        let mut pending = vec![(root, 1)];
        while let Some((at, depth)) = pending.pop().filter(|(at, _)| *at != NONE).or_else(|| pending.pop()) {
            if at == NONE {
                continue;
            }
            deepest = deepest.max(depth);
            let link = names.links[at as usize];
            pending.extend(link.below.map(|below| (below, depth + 1)).into_iter().filter(|p| p.0 != NONE));
        }
        assert!(deepest < 100, "{deepest}");
    }

    #[test]
    fn another_trees_names_keep_their_order() {
        let (mut first, mut first_root) = (Names::new(), NONE);
        let (mut second, mut second_root) = (Names::new(), NONE);
        for (names, root, text) in [(&mut first, &mut first_root, "b"), (&mut second, &mut second_root, "ca")]
        {
            for name in text.bytes() {
                let link = names.push(&[name], u32::from(name)).unwrap();
                names.insert(root, link);
            }
        }
        let moved = first.append(second, 1000).unwrap();
        assert_eq!(listed(&first, second_root + moved), [(vec![b'a'], 1097), (vec![b'c'], 1099)]);
        let mut cursor = first.cursor(second_root + moved);
        while let Some(link) = cursor.next(&first) {
            first.insert(&mut first_root, link);
        }
        let names: Vec<_> = listed(&first, first_root).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [b"a", b"b", b"c"]);
    }
}
