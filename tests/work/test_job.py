"""What a job tells its workers beside its fields."""

from dermsearch.work.job import Judge


def test_each_draw_of_labels_has_random_numbers_of_its_own() -> None:
    """A fit from other labels starts from other numbers, or draws would share more luck than replicates do."""
    judge = Judge(protocol="finetune", version=1, config={}, data="data", labelled="5", draw=0)
    seeds = [judge.model_copy(update={"draw": draw}).seed(seed) for seed in (0, 1) for draw in range(3)]
    assert seeds[0] == 0 and seeds[3] == 1, "the first draw has those of the study's seed"
    assert len(set(seeds)) == 6
    assert all(0 <= seed < 2**31 for seed in seeds), "for whatever draws by them"
