"""What arguments of more than one tool are made of."""

import argparse


def listed(known, always=()):
    """An argparse type: names separated by commas, all of them known, those of `always` among them."""
    def names(text: str) -> list[str]:
        found = text.split(",")
        unknown = [name for name in found if name not in known]
        missing = [name for name in always if name not in found]
        if unknown:
            raise argparse.ArgumentTypeError(f"found {', '.join(map(repr, unknown))}; expected names out of {','.join(known)}")
        if missing:
            raise argparse.ArgumentTypeError(f"found {text}; expected {', '.join(missing)} among them")
        return found
    return names
