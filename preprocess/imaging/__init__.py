"""Operations on images and masks, without tracks and cameras: flow, regions, filling."""
