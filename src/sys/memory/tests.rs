#[test]
fn every_length_at_every_offset_is_copied_and_nothing_beside_it() {
    let from: Vec<u8> = (0..2000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    for count in (0..700).chain([1023, 1024, 1500]) {
        for (source, target) in [(0, 0), (1, 0), (0, 1), (3, 7), (15, 2), (16, 31)] {
            let mut to = vec![0xff; 2000];
            let start = to.as_mut_ptr().wrapping_add(target);
            // SAFETY: both have 2,000 bytes, of which `count` from an offset of 31 at most are used.
            let got = unsafe { super::memcpy(start, from.as_ptr().wrapping_add(source), count) };
            assert_eq!(got, start);
            assert_eq!(to[target..target + count], from[source..source + count], "{count} bytes");
            let beside = to[..target].iter().chain(&to[target + count..]);
            assert!(beside.into_iter().all(|byte| *byte == 0xff), "beside {count} bytes");
        }
    }
}

#[test]
fn bytes_move_onto_each_other_in_either_direction() {
    let start: Vec<u8> = (0..1000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    for count in (0..150).chain([511, 512, 600]) {
        for (source, target) in [(100, 100), (100, 101), (101, 100), (100, 116), (116, 100), (0, 300), (300, 0)] {
            let mut bytes = start.clone();
            let base = bytes.as_mut_ptr();
            let (to, from) = (base.wrapping_add(target), base.wrapping_add(source));
            // SAFETY: there are 1,000 bytes, of which 600 from an offset of 300 at most are used.
            let got = unsafe { super::memmove(to, from, count) };
            assert_eq!(got, to);
            let mut want = start.clone();
            want.copy_within(source..source + count, target);
            assert_eq!(bytes, want, "{count} bytes from {source} to {target}");
        }
    }
}
