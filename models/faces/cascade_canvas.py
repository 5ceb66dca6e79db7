"""Where the levels of a pyramid lie on one canvas, so that a network looks at all of them in one call."""


def pooled_side(pixels: int) -> int:
    """Rows or columns of P-Net's first maps for a level's rows or columns: 3x3 convolution, 2x2 pooling rounded up."""
    return (pixels - 1) // 2


def side_by_side(sizes: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """The corner (row, column) of each rectangle (rows, columns), and the size of the canvas that holds all.

    Rectangles come largest first, none higher or wider than the one before. Each lies on the first shelf with room for
    it; the canvas is as wide as the first.
    """
    corners, shelves, height = list[tuple[int, int]](), list[list[int]](), 0
    for rows, columns in sizes:
        shelf = next((shelf for shelf in shelves if shelf[1] + columns <= sizes[0][1]), None)
        if shelf is None:
            shelf = [height, 0]
            shelves.append(shelf)
            height += rows
        corners.append((shelf[0], shelf[1]))
        shelf[1] += columns
    return corners, (height, sizes[0][1])
