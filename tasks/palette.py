"""Colours of expressions, the same in annotated videos, viewers and charts."""

from data_contracts.vocabulary import EXPRESSIONS

# Okabe and Ito (2008), "Color Universal Design", https://jfly.uni-koeln.de/color/: the colours differ for every kind of
# colour vision. Grey and brown replace black and yellow, which are invisible on dark or on light ground.
EXPRESSION_COLOURS = dict(
    zip(
        EXPRESSIONS,
        ("#8c8c8c", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#0072b2", "#56b4e9", "#a6761d"),
        strict=True,
    )
)
