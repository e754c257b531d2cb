"""Operations on images and masks that know neither tracks nor cameras: flow, regions, filling."""
