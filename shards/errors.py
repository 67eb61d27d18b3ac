"""What damaged data raises."""


class CorruptSample(ValueError):
    """Bytes on disk are not what their header, hash or manifest row says: the message names what, where, and a
    remedy.
    """
