use super::*;

use proptest::prelude::{Just, ProptestConfig, Strategy, prop_assert, prop_oneof, proptest};
use proptest::{collection, sample};

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// A heap of its own, too large for a stack.
fn heap() -> Box<Heap> {
    // SAFETY: a new heap is all zeroes: no piece, no free block.
    unsafe { Box::<Heap>::new_zeroed().assume_init() }
}

fn take(heap: &Heap, layout: Layout) -> *mut u8 {
    assert!(layout.size() > 0);
    // SAFETY: the size isn't 0.
    unsafe { heap.alloc(layout) }
}

fn give(heap: &Heap, block: *mut u8, layout: Layout) {
    // SAFETY: the tests give what is live, with its layout.
    unsafe { heap.dealloc(block, layout) };
}

fn resize(heap: &Heap, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
    assert!(size > 0);
    // SAFETY: as for `give`; the size isn't 0.
    unsafe { heap.realloc(block, layout, size) }
}

/// What a program does next: `usize` picks one of the live blocks.
#[derive(Clone, Debug)]
enum Step {
    Take { size: usize, align: usize },
    Resize { block: sample::Index, size: usize },
    Give { block: sample::Index },
    Settle,
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 1..200_usize, 4 => 1..5000_usize, 2 => 1..=2 * LARGEST, 1 => Just(LARGEST), 1 => 1..100_000_usize]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let align =
        prop_oneof![8 => sample::select(vec![1_usize, 2, 4, 8, 16]), 1 => sample::select(vec![32_usize, 64, 4096])];
    let step = prop_oneof![
        3 => (sizes(), align).prop_map(|(size, align)| Step::Take { size, align }),
        2 => (proptest::arbitrary::any::<sample::Index>(), sizes()).prop_map(|(block, size)| Step::Resize { block, size }),
        2 => proptest::arbitrary::any::<sample::Index>().prop_map(|block| Step::Give { block }),
    ];
    collection::vec(step, 1..200)
}

/// A live block, filled with bytes of its own.
struct Block {
    start: *mut u8,
    layout: Layout,
    byte: u8,
}

impl Block {
    fn new(start: *mut u8, layout: Layout, byte: u8) -> Block {
        assert!(!start.is_null());
        assert_eq!(start.addr() % layout.align(), 0, "{layout:?}");
        // SAFETY: the block has that many bytes.
        unsafe { start.write_bytes(byte, layout.size()) };
        Block { start, layout, byte }
    }

    fn holds_its_bytes(&self, count: usize) -> bool {
        // SAFETY: the block has that many bytes, and they were written.
        let bytes = unsafe { std::slice::from_raw_parts(self.start, count) };
        bytes.iter().all(|byte| *byte == self.byte)
    }
}

/// Does what is asked, and gives back what is left at the end.
fn follow(heap: &Heap, steps: &[Step]) -> Result<(), proptest::test_runner::TestCaseError> {
    let mut live: Vec<Block> = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let byte = u8::try_from(number % 251).unwrap();
        match step {
            Step::Take { size, align } => {
                let layout = layout(*size, *align);
                live.push(Block::new(take(heap, layout), layout, byte));
            }
            Step::Resize { block, size } if !live.is_empty() => {
                let index = block.index(live.len());
                let old = live.swap_remove(index);
                let start = resize(heap, old.start, old.layout, *size);
                let moved = Block { start, ..old };
                prop_assert!(moved.holds_its_bytes(old.layout.size().min(*size)), "content after {step:?}");
                live.push(Block::new(start, layout(*size, old.layout.align()), byte));
            }
            Step::Give { block } if !live.is_empty() => {
                let index = block.index(live.len());
                let block = live.swap_remove(index);
                prop_assert!(block.holds_its_bytes(block.layout.size()));
                give(heap, block.start, block.layout);
            }
            Step::Settle => heap.settle(),
            Step::Resize { .. } | Step::Give { .. } => {}
        }
    }
    for block in live {
        // Another's bytes would be here if two blocks overlapped.
        prop_assert!(block.holds_its_bytes(block.layout.size()), "{:?}", block.layout);
        give(heap, block.start, block.layout);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn blocks_are_aligned_keep_their_content_and_never_overlap(steps in steps()) {
        follow(&heap(), &steps)?;
    }

    #[test]
    fn nor_where_it_is_settled_in_between(mut steps in steps(), places: Vec<sample::Index>) {
        for place in places {
            steps.insert(place.index(steps.len()), Step::Settle);
        }
        follow(&heap(), &steps)?;
    }

    #[test]
    fn no_more_is_held_than_each_class_once_had_at_the_same_time(steps in steps()) {
        let (heap, peak) = (heap(), peak(&steps));
        for _ in 0..10 {
            follow(&heap, &steps)?;
            let first = heap.first.0.get().addr();
            // Where more pieces are needed, the end of each is lost, too.
            if peak < FIRST {
                prop_assert!((first..=first + peak).contains(&heap.next.get().addr().max(first)));
            }
        }
    }
}

/// The bytes of each class's blocks when most were live, together.
fn peak(steps: &[Step]) -> usize {
    let mut live: Vec<(usize, usize)> = Vec::new();
    let (mut now, mut most) = ([0; CLASSES], [0; CLASSES]);
    let mut count = |(size, align): (usize, usize), by: isize| {
        if !apart(size, align) {
            let class = class(size);
            now[class] += by;
            most[class] = now[class].max(most[class]);
        }
    };
    for step in steps {
        match step {
            Step::Take { size, align } => {
                live.push((*size, *align));
                count((*size, *align), 1);
            }
            Step::Resize { block, size } if !live.is_empty() => {
                let old = live.swap_remove(block.index(live.len()));
                live.push((*size, old.1));
                // The new block is there before the old one goes, unless it is the same.
                if apart(old.0, old.1) || apart(*size, old.1) || class(old.0) != class(*size) {
                    count((*size, old.1), 1);
                    count(old, -1);
                }
            }
            Step::Give { block } if !live.is_empty() => count(live.swap_remove(block.index(live.len())), -1),
            Step::Resize { .. } | Step::Give { .. } | Step::Settle => {}
        }
    }
    (1..=LARGEST).filter(|size| rounded(*size) == *size).map(|size| size * most[class(size)].unsigned_abs()).sum()
}

#[test]
fn every_size_has_the_class_of_what_it_is_rounded_to() {
    let mut last = (0, 0);
    for size in 1..=LARGEST {
        let (number, bytes) = (class(size), rounded(size));
        assert!(bytes >= size && bytes % ALIGN == 0 && class(bytes) == number && rounded(bytes) == bytes, "{size}");
        // A quarter at most is lost, above the smallest.
        assert!(bytes - size < ALIGN.max(size / 4 + 1), "{size} gets {bytes}");
        assert!((number, bytes) == last || number == last.0 + 1, "{size}: class {number} after {}", last.0);
        last = (number, bytes);
    }
    assert_eq!(last, (CLASSES - 1, LARGEST));
}

#[test]
fn a_freed_block_is_the_next_one_of_its_class() {
    let heap = heap();
    let first = take(&heap, layout(100, 8));
    let other = take(&heap, layout(5000, 8));
    give(&heap, first, layout(100, 8));
    assert_eq!(take(&heap, layout(112, 1)), first);
    // The last one that was carved is simply carved again.
    give(&heap, other, layout(5000, 8));
    assert_eq!(take(&heap, layout(1, 1)), other);
}

#[test]
fn what_is_settled_is_never_written_to_again() {
    let heap = heap();
    let wanted = layout(100, 8);
    let [free, live] = [take(&heap, wanted), take(&heap, wanted)].map(|start| Block::new(start, wanted, 7));
    take(&heap, wanted);
    give(&heap, free.start, wanted);
    heap.settle();
    let settled = heap.next.get();
    give(&heap, live.start, wanted);
    assert!(live.holds_its_bytes(wanted.size()), "a free block holds the next one");
    let new = take(&heap, wanted);
    assert_eq!(new, settled, "the next block is new");
    // Of those that come later the list is as before.
    take(&heap, wanted);
    give(&heap, new, wanted);
    assert_eq!(take(&heap, wanted), new);
}

#[test]
fn what_was_carved_last_grows_in_place() {
    let heap = heap();
    let start = take(&heap, layout(64, 1));
    let mut size = 64;
    while size < LARGEST {
        assert_eq!(resize(&heap, start, layout(size, 1), size * 2), start);
        size *= 2;
    }
}

#[test]
fn further_pieces_come_from_the_kernel() {
    let heap = heap();
    for _ in 0..(FIRST + PIECE) / LARGEST {
        assert!(!take(&heap, layout(LARGEST, 1)).is_null());
    }
    let first = heap.first.0.get().addr();
    assert!(!(first..first + FIRST).contains(&heap.next.get().addr()));
}

#[test]
fn what_cannot_be_had_is_null() {
    let heap = heap();
    for layout in [layout(1 << 46, 1), layout(1, 8192), layout(isize::MAX as usize - 4095, 4096)] {
        assert!(take(&heap, layout).is_null(), "{layout:?}");
    }
}
