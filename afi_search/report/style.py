"""Colours and words that the picture has in common wherever it is drawn.

The colours are told apart with any common kind of colour vision (Okabe and Ito's palette).
"""

from __future__ import annotations

INK = "#1f2933"
SOFT = "#52606d"
FAINT = "#7b8794"
GRID = "#e4e7eb"
FRONT = "#0072b2"
OTHERS = "#8fb8d4"
PAPER = "#d55e00"
PLAIN = "#1f2933"
PRUNED = "#7b8794"

FRONT_NAME = "front"
OTHERS_NAME = "other trials of full fidelity"
PLAIN_NAME = "plain backbone, trained here"
PRUNED_NAME = "pruned early"

Y_AXES = {
    "main": "validation accuracy, %",
    "paper": "paper, %",
    "pruned": "pruned\nafter epoch",
}
