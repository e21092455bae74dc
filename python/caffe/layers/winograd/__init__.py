"""The compiled 3x3 convolutions of Lavin and Gray: `convolve` from transforms, products, tiling."""
