from conftest_search import bench

__all__ = ["bench"]
