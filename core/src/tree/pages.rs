//! Lists that grow by pages: what is in them is never copied to a larger place, and goes page by page.
//!
//! A list that doubles takes twice its size, and its old place, while it grows. Allocators keep the places of large ones
//! for later. Pages are small enough to be used again, whatever asks for them.

use std::ops::{Index, IndexMut};

/// Bytes of a page, at most.
const PAGE: usize = 64 << 10;

/// Values by their number. The first page grows as they come: most lists are short.
#[derive(Clone, Debug)]
pub(super) struct Pages<T>(Vec<Vec<T>>);

impl<T> Pages<T> {
    /// log2 of how many values a page has.
    const SHIFT: u32 = (PAGE / size_of::<T>()).ilog2();

    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn len(&self) -> usize {
        self.0.last().map_or(0, |last| ((self.0.len() - 1) << Self::SHIFT) + last.len())
    }

    pub(super) fn push(&mut self, value: T) {
        match self.0.last_mut() {
            Some(last) if last.len() < 1 << Self::SHIFT => last.push(value),
            Some(_) => {
                let mut page = Vec::with_capacity(1 << Self::SHIFT);
                page.push(value);
                self.0.push(page);
            }
            None => self.0.push(vec![value]),
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().flatten()
    }
}

impl<T> Index<usize> for Pages<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        &self.0[at >> Self::SHIFT][at & ((1 << Self::SHIFT) - 1)]
    }
}

impl<T> IndexMut<usize> for Pages<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.0[at >> Self::SHIFT][at & ((1 << Self::SHIFT) - 1)]
    }
}

/// Each page goes when its last value has been taken.
impl<T> IntoIterator for Pages<T> {
    type Item = T;
    type IntoIter = std::iter::Flatten<std::vec::IntoIter<Vec<T>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

/// Texts of up to 65,535 bytes, each with its length: one byte for most.
#[derive(Clone, Debug, Default)]
pub(super) struct Texts {
    pages: Vec<Vec<u8>>,
    /// Bytes of all texts.
    bytes: usize,
}

/// In place of a length that takes two bytes more.
const LONG: u8 = u8::MAX;
/// Bits of a place within a page.
const WITHIN: u32 = PAGE.ilog2();
/// What a text of 65,535 bytes takes with its length does not fit a page.
const TEXT_MAX: usize = PAGE - 3;

impl Texts {
    /// Bytes of all texts, those of their lengths apart.
    pub(super) fn byte_count(&self) -> usize {
        self.bytes
    }

    /// Where the text is from now on; `None` for a longer one than there may be, and when there is no room for more.
    pub(super) fn push(&mut self, text: &[u8]) -> Option<u32> {
        if text.len() > TEXT_MAX {
            return None;
        }
        let taken = text.len() + if text.len() < usize::from(LONG) { 1 } else { 3 };
        let has_room = self.pages.last().is_some_and(|page| page.len() + taken <= PAGE);
        if !has_room {
            self.pages.push(if self.pages.is_empty() { Vec::new() } else { Vec::with_capacity(PAGE) });
        }
        let number =
            u32::try_from(self.pages.len() - 1).ok().filter(|number| number >> (u32::BITS - WITHIN) == 0)?;
        let page = self.pages.last_mut()?;
        let place = number << WITHIN | page.len() as u32;
        match u8::try_from(text.len()) {
            Ok(length) if length != LONG => page.push(length),
            _ => {
                page.push(LONG);
                page.extend_from_slice(&(text.len() as u16).to_le_bytes());
            }
        }
        page.extend_from_slice(text);
        self.bytes += text.len();
        Some(place)
    }

    pub(super) fn text(&self, place: u32) -> &[u8] {
        let at = &self.pages[(place >> WITHIN) as usize][(place as usize & (PAGE - 1))..];
        match *at {
            [LONG, low, high, ref text @ ..] => &text[..usize::from(u16::from_le_bytes([low, high]))],
            [length, ref text @ ..] => &text[..usize::from(length)],
            [] => &[],
        }
    }

    /// Takes the texts of another list, without a copy; how far their places move. `None` when there is no room.
    pub(super) fn append(&mut self, mut other: Self) -> Option<u32> {
        let moved = u32::try_from(self.pages.len()).ok()?;
        let end = moved as usize + other.pages.len();
        if end > 1 << (u32::BITS - WITHIN) {
            return None;
        }
        if let Some(last) = other.pages.last_mut() {
            last.shrink_to_fit();
        }
        self.pages.append(&mut other.pages);
        self.bytes += other.bytes;
        Some(moved << WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use super::{PAGE, Pages, Texts};

    #[test]
    fn values_stay_where_they_are() {
        let mut pages = Pages::new();
        for number in 0..100_000_u64 {
            assert_eq!(pages.len() as u64, number);
            pages.push(number);
        }
        pages[70_000] += 1;
        assert_eq!((pages[0], pages[69_999], pages[70_000]), (0, 69_999, 70_001));
        pages.iter_mut().for_each(|number| *number += 1);
        assert!(
            pages
                .into_iter()
                .enumerate()
                .all(|(at, number)| { number == at as u64 + 1 + u64::from(at == 70_000) })
        );
    }

    #[test]
    fn a_page_is_no_larger_than_it_may_be() {
        let mut pages = Pages::new();
        (0..10_000).for_each(|_| pages.push([0_u8; 20]));
        assert!(pages.0.iter().all(|page| page.capacity() * 20 <= PAGE));
        let mut pages = Pages::new();
        pages.push([0_u8; 20]);
        assert!(pages.0[0].capacity() < 8);
    }

    #[test]
    fn texts_are_found_where_they_were_put() {
        let long = vec![b'l'; PAGE - 3];
        let texts = |from: usize| (from..2_000).map(|length| &long[..length]).chain([&long[..], b"end"]);
        let [mut first, mut second] = [Texts::default(), Texts::default()];
        let firsts: Vec<_> = texts(0).map(|text| first.push(text).unwrap()).collect();
        let seconds: Vec<_> = texts(250).map(|text| second.push(text).unwrap()).collect();
        let sum = |from: usize| texts(from).map(<[u8]>::len).sum::<usize>();
        assert_eq!(first.byte_count(), sum(0));
        let moved = first.append(second).unwrap();
        assert_eq!(first.byte_count(), sum(0) + sum(250));
        assert!(texts(0).zip(firsts).all(|(text, place)| first.text(place) == text));
        assert!(texts(250).zip(seconds).all(|(text, place)| first.text(place + moved) == text));
        let last = first.push(b"last").unwrap();
        assert_eq!(first.text(last), b"last");
        assert_eq!(first.push(&vec![0; PAGE]), None);
    }
}
