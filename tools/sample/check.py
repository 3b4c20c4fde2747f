"""Checks the scenes and questions: the same from the same seed, splits apart, answers true.

    python tools/sample/check.py
"""

import numpy as np

import questions
import test_set
from scenes import SIZE, SPLITS, arrange, caption, generator, scene, table

SCENES = 200


def check_repeatable() -> None:
    for number in range(5):
        first, things = scene(3, "test", number)
        again, same = scene(3, "test", number)
        assert (first == again).all() and things == same
        assert (first != scene(4, "test", number)[0]).any()


def check_combinations() -> None:
    """Training shows nothing of another split; the others show enough of their own to ask about."""
    for split in SPLITS:
        shown = [thing.split for number in range(SCENES) for thing in arrange(generator(0, split, number), split)]
        assert set(shown) <= {split, "train"}
        assert shown.count(split) > len(shown) / 3


def check_places() -> None:
    for number in range(SCENES):
        things = arrange(generator(0, "train", number), "train")
        assert len({thing.kind for thing in things}) == len(things) >= 4
        for place, thing in enumerate(things):
            assert all(thing.diameter // 2 <= at <= SIZE - thing.diameter // 2 for at in (thing.x, thing.y))
            for other in things[:place]:
                assert (thing.x - other.x) ** 2 + (thing.y - other.y) ** 2 > ((thing.diameter + other.diameter) / 2) ** 2


def check_answers() -> None:
    """Questions are answered from the caption alone, by other means than those that made them."""
    for number in range(SCENES):
        things = arrange(generator(0, "test", number), "test")
        said = dict(part.split(" on ") for part in caption(things).split(", "))
        behind = {noun.split()[1]: disc.split()[1] for noun, disc in said.items()}
        for sort, subject, answer, _ in test_set.all_questions(table(things), "test", np.random.default_rng(number)):
            words, found = questions.text(sort, subject).split(), questions.ANSWERS[answer]
            if questions.SORTS[sort] == "color":
                assert behind[words[5]] == found
            elif questions.SORTS[sort] == "thing":
                assert [noun for noun, color in behind.items() if color == words[4]] == [found]
            else:
                assert (words[3] in behind) == (found == "yes")


def check_words() -> None:
    for sort, subject in questions.TABLE:
        ids, mask = questions.encode(questions.text(sort, subject))
        assert len(ids) == len(mask) == questions.LENGTH and (ids[mask == 0] == 0).all() and ids[0] == questions.IDS["[CLS]"]


if __name__ == "__main__":
    for check in (check_repeatable, check_combinations, check_places, check_answers, check_words):
        check()
        print(check.__name__.replace("_", " "), "ok")
