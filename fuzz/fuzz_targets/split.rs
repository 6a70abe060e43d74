//! Cuts an input into the pieces in which it might arrive.

/// `bytes` in pieces, of which some may be empty. 0: byte by byte, or
/// in a thousand pieces; else sizes of all magnitudes, other
/// ones for every `control`.
pub(crate) fn pieces(control: u8, bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    let mut random = u64::from(control);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let size = match control {
            0 => 1 + bytes.len() / 1024,
            _ => {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                let magnitude = (random >> 60) as u32;
                (random >> 32) as usize & ((2 << magnitude) - 1)
            }
        };
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        rest = behind;
        Some(piece)
    })
}
