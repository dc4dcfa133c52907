use super::*;

#[test]
fn tiles_that_go_beyond_an_operand_are_refused() {
    let (a, b) = ([1f32; 8], [1f32; 4 * COLUMNS]);
    let whole = || Tile { a: &a, row_step: 4, lane_step: 1, b: &b, width: COLUMNS, lanes: 4, next: 0, is_first: true };
    let run = |tile: &Tile<'_, f32>, rows: usize| {
        let mut sums = vec![0f32; rows * tile.width];
        add_product(Simd::detect(), tile, &mut sums, &mut Registers::default());
        sums
    };
    assert_eq!(run(&whole(), 2), [4f32; 2 * COLUMNS]);
    for (what, tile) in [
        ("row steps that overflow", Tile { row_step: usize::MAX - 2, ..whole() }),
        ("row steps too long", Tile { row_step: 5, ..whole() }),
        ("lane steps that overflow", Tile { lane_step: usize::MAX / 2, ..whole() }),
        ("lanes that overflow", Tile { lanes: usize::MAX / 8, lane_step: 0, ..whole() }),
        ("more lanes than `b` has", Tile { lanes: 5, row_step: 0, ..whole() }),
        ("panels too wide", Tile { width: 64, lanes: 1, ..whole() }),
    ] {
        let outcome = std::panic::catch_unwind(|| run(&tile, 2));
        assert!(outcome.is_err(), "{what}");
    }
}
